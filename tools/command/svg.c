/* SVG, as far as reports need it. */
#include "tools/command/svg.h"

enum { INNER_WIDTH = SVG_WIDTH - SVG_LEFT - SVG_RIGHT, INNER_HEIGHT = SVG_HEIGHT - SVG_TOP - SVG_BOTTOM };

void svg_begin(FILE *f, int width, int height)
{
    fprintf(f,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
            "font-size='11'>\n<rect width='100%%' height='100%%' fill='white'/>\n",
            width, height);
}

void svg_end(FILE *f)
{
    fprintf(f, "</svg>\n");
}

void svg_text(FILE *f, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        case '\'': fputs("&#39;", f); break;
        case '"': fputs("&quot;", f); break;
        default: (unsigned char)*text < ' ' ? fputs("\xEF\xBF\xBD", f) : fputc(*text, f);
        }
}

void svg_panel(FILE *f, double x0, const char *title, double low, double high)
{
    fprintf(f, "<text x='%g' y='20' font-weight='bold'>", x0 + SVG_LEFT);
    svg_text(f, title);
    fprintf(f, "</text>\n");
    for (int i = 0; i <= 4; i++) {
        double y = SVG_TOP + INNER_HEIGHT * i / 4.0;
        fprintf(f,
                "<line x1='%g' x2='%g' y1='%.1f' y2='%.1f' stroke='#ddd'/><text x='%g' y='%.1f' "
                "text-anchor='end'>%.4g</text>\n",
                x0 + SVG_LEFT, x0 + SVG_WIDTH - SVG_RIGHT, y, y, x0 + SVG_LEFT - 6, y + 4, high - (high - low) * i / 4);
    }
}

double svg_across(double x0, double across)
{
    return x0 + SVG_LEFT + across * INNER_WIDTH;
}

void svg_line_begin(FILE *f, const char *colour)
{
    fprintf(f, "<polyline fill='none' stroke='%s' stroke-width='2' points='", colour);
}

void svg_line_point(FILE *f, double x0, double across, double up)
{
    fprintf(f, "%.1f,%.1f ", svg_across(x0, across), SVG_TOP + (1 - up) * INNER_HEIGHT);
}

void svg_line_end(FILE *f)
{
    fprintf(f, "'/>\n");
}
