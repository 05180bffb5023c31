BlogitsJ
Ç=V¾f¼¾¢¾