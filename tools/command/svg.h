/*
 * Pictures of reports: panels side by side, each with a title and five lines across.
 */
#ifndef SVG_H
#define SVG_H

#include "tools/command/command.h"

enum { SVG_WIDTH = 420, SVG_HEIGHT = 280, SVG_LEFT = 56, SVG_RIGHT = 20, SVG_TOP = 30, SVG_BOTTOM = 36 };

void svg_begin(FILE *f, int width, int height);
void svg_end(FILE *f);
/* Text between tags: names of nodes hold what a user wrote, so <, >, & and quotes are escaped, and control characters,
 * which XML 1.0 has no form for, become U+FFFD. */
void svg_text(FILE *f, const char *text);
/* A panel that begins at x0, numbered from low to high. */
void svg_panel(FILE *f, double x0, const char *title, double low, double high);
/* In a panel: across is a share of its width; up, of its height. Write points between begin and end. */
void svg_line_begin(FILE *f, const char *colour);
void svg_line_point(FILE *f, double x0, double across, double up);
void svg_line_end(FILE *f);
double svg_across(double x0, double across);

#endif
