/* What hk.Excite (ops/excite.c) can be made of, for the pass that makes it. */
#ifndef HK_EXCITE_H
#define HK_EXCITE_H

enum {
    HK_EXCITE_SQUEEZED = 128, /* channels between the two products that its kernel holds */
    HK_EXCITE_OCTET = 8,      /* what the channels of X are a multiple of */
};

#endif
