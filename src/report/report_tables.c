#include "report_parts.h"

#include "deltapath/store/owned.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char STYLE[] =
    ":root{--ink:#1d2430;--soft:#5a6270;--line:#dfe3e8;--paper:#fff;--band:#f5f7f9}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#a3abb8;--line:#39414d;"
    "--paper:#161a20;--band:#1e242c}}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:1280px;padding:32px 28px 64px;background:var(--paper);"
    "color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
    "h1{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}"
    "h2{font-size:20px;margin:44px 0 8px;padding-top:14px;border-top:1px solid var(--line)}"
    "p.sub,figcaption,.note{color:var(--soft)}p.sub{margin:0 0 20px}"
    ".wrap{overflow-x:auto}"
    "table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;width:100%}"
    "th,td{padding:6px 6px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}"
    "th{font-weight:600;color:var(--soft);vertical-align:bottom;line-height:1.25}"
    "td.l,th.l{text-align:left}td.e{white-space:normal;max-width:280px;overflow-wrap:anywhere}"
    "tbody tr:nth-child(even){background:var(--band)}"
    "td small{display:block;color:var(--soft);font-size:11px}td.l "
    "small{white-space:normal;max-width:260px}"
    ".v{display:inline-block;padding:1px 9px;border-radius:10px;color:#fff;font-size:12px;"
    "font-weight:600}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:12px 0;"
    "font-size:13px}"
    "dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}"
    "figure{margin:22px 0;padding:14px;background:#fff;border:1px solid var(--line);"
    "border-radius:8px;break-inside:avoid}figure svg{display:block;margin:0 auto;max-width:100%;"
    "height:auto}figcaption{color:#5a6270;font-size:13px;margin-top:8px;text-align:center}"
    ".notice{padding:12px 14px;margin:0;border-left:4px solid #c98a00;background:#fff6e0;"
    "color:#5b4300}"
    "details{margin:10px 0}summary{cursor:pointer;color:var(--soft)}"
    "pre{overflow-x:auto;padding:12px;background:var(--band);border-radius:6px;font-size:12.5px;"
    "line-height:1.45}"
    "@media print{body{max-width:none;padding:0;font-size:11px}table{font-size:8.5px}"
    "th,td{padding:3px 4px}.wrap{overflow:visible}"
    "*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}";

/* Names come from files: markup in them is text, and control characters are blanks. */
void dpt_report_text(FILE *html, const char *text) {
    for (; text != NULL && *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&')
            fputs("&amp;", html);
        else if (c == '<')
            fputs("&lt;", html);
        else if (c == '>')
            fputs("&gt;", html);
        else if (c == '"')
            fputs("&quot;", html);
        else if (c == '\'')
            fputs("&#39;", html);
        else
            fputc((c < ' ' && c != '\n' && c != '\t') || c == 127 ? ' ' : c, html);
    }
}

/* `format` takes one double. A minus sign is a real one. */
void dpt_report_number(FILE *html, double x, const char *format) {
    char text[64];
    if (isnan(x)) {
        fputs("&ndash;", html);
        return;
    }
    if (isinf(x)) {
        fputs(x > 0.0 ? "&infin;" : "&minus;&infin;", html);
        return;
    }
    snprintf(text, sizeof text, format, x);
    for (const char *c = text; *c != '\0'; c++)
        if (*c == '-' && (c == text || c[-1] != 'e'))
            fputs("&minus;", html);
        else
            fputc(*c, html);
}

unsigned dpt_report_colour(const char *verdict) {
    static const struct {
        const char *name;
        unsigned colour;
    } table[] = {{"competitive", 0x1a7f5a}, {"improved", 0x1f6feb}, {"decreased", 0xc0392b}};
    for (int k = 0; k < 3; k++)
        if (verdict != NULL && strcmp(verdict, table[k].name) == 0)
            return table[k].colour;
    return 0x7b8490;
}

void dpt_report_head(FILE *html, const char *title) {
    fputs(DPT_OWNED_REPORT_START
          "\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
          "'unsafe-inline'; img-src data:\">\n<title>",
          html);
    dpt_report_text(html, title);
    fprintf(html, "</title>\n<style>%s</style>\n</head>\n<body>\n<h1>", STYLE);
    dpt_report_text(html, title);
    fputs("</h1>\n", html);
}

static void value_row(FILE *html, const char *key, const json_t *value) {
    char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    const char *shown = json_is_string(value) ? json_string_value(value) : text;
    if (shown != NULL && strlen(shown) <= 300 && strchr(shown, '\n') == NULL) {
        fputs("<dt>", html);
        dpt_report_text(html, key);
        fputs("</dt><dd>", html);
        dpt_report_text(html, shown);
        fputs("</dd>\n", html);
    }
    free(text);
}

void dpt_report_provenance(FILE *html, const dpt_results *results) {
    json_t *root = json_loads(results->provenance, 0, NULL);
    const char *key;
    json_t *value;
    fputs("<dl>\n", html);
    json_object_foreach(root, key, value) {
        value_row(html, key, value);
    }
    fputs("</dl>\n", html);
    json_decref(root);
    if (results->job[0] != '\0') {
        fputs("<details><summary>Job file</summary><pre>", html);
        dpt_report_text(html, results->job);
        fputs("</pre></details>\n", html);
    }
    if (results->provenance[0] != '\0') {
        fputs("<details><summary>Whole provenance</summary><pre>", html);
        dpt_report_text(html, results->provenance);
        fputs("</pre></details>\n", html);
    }
}

static void edit_cell(FILE *html, int64_t number, const dpt_result *r) {
    fprintf(html, "<tr><td>%" PRId64 "</td><td class=\"l e\">", number);
    dpt_report_text(html, r->edit);
    fputs("<small>", html);
    dpt_report_text(html, r->method);
    for (int64_t i = 0; i < r->nparameters; i++) {
        if (strchr(r->parameters[i].value, ':') != NULL)
            continue; /* intervals and traces: those of a search have a table of their own */
        fputs(i == 0 ? ": " : ", ", html);
        dpt_report_text(html, r->parameters[i].name);
        fputc(' ', html);
        dpt_report_text(html, r->parameters[i].value);
    }
    fputs("</small>", html);
    if (dpt_result_is_rounded(r->scalars.rounding)) {
        fputs("<small><strong>rounding to the output type ", html);
        fputs(r->scalars.rounding > 0.0 ? "takes back " : "adds ", html);
        dpt_report_number(html, 100.0 * fabs(r->scalars.rounding), "%.0f&thinsp;%%");
        fputs(" of the edit</strong></small>", html);
    }
    fputs("</td>", html);
}

static void number_cell(FILE *html, double x, const char *format) {
    fputs("<td>", html);
    dpt_report_number(html, x, format);
    fputs("</td>", html);
}

/* A number with its interval below. */
static void interval_numbers(FILE *html, double x, double low, double high, const char *format) {
    dpt_report_number(html, x, format);
    if (!isnan(low) && !isnan(high)) {
        fputs("<small>", html);
        dpt_report_number(html, low, format);
        fputs(" &hellip; ", html);
        dpt_report_number(html, high, format);
        fputs("</small>", html);
    }
}

static void interval_cell(FILE *html, double x, double low, double high, const char *format) {
    fputs("<td>", html);
    interval_numbers(html, x, low, high, format);
    fputs("</td>", html);
}

/* The change with the interval that judged and, below, the resampled one. */
static void change_cell(FILE *html, const dpt_result_scalars *s) {
    fputs("<td>", html);
    dpt_report_number(html, s->change, "%+.3g");
    const double ends[2][2] = {{s->change_low, s->change_high},
                               {s->bootstrap_low, s->bootstrap_high}};
    bool same = ends[0][0] == ends[1][0] && ends[0][1] == ends[1][1];
    for (int k = 0; k < (same ? 1 : 2); k++) {
        if (isnan(ends[k][0]) || isnan(ends[k][1]))
            continue;
        fputs(k == 0 ? "<small>" : "<small title=\"bootstrap\">b: ", html);
        dpt_report_number(html, ends[k][0], "%+.3g");
        fputs(" &hellip; ", html);
        dpt_report_number(html, ends[k][1], "%+.3g");
        fputs("</small>", html);
    }
    if (dpt_result_is_few(s)) {
        fputs("<small>few, of ", html);
        dpt_report_number(html, ceil(s->change_enough), "%.0f");
        fputs("</small>", html);
    }
    fputs("</td>", html);
}

/* The accuracy and, below, the interval of its change in points. */
static void accuracy_cell(FILE *html, const dpt_result_scalars *s) {
    fputs("<td>", html);
    dpt_report_number(html, 100.0 * s->accuracy_edit, "%.1f&thinsp;%%");
    if (!isnan(s->accuracy_low) && !isnan(s->accuracy_high)) {
        fputs("<small title=\"change in points\">", html);
        dpt_report_number(html, 100.0 * s->accuracy_low, "%+.1f");
        fputs(" &hellip; ", html);
        dpt_report_number(html, 100.0 * s->accuracy_high, "%+.1f");
        fputs("</small>", html);
    }
    fputs("</td>", html);
}

static void ends_line(FILE *html, const char *start, double low, double high) {
    if (isnan(low) || isnan(high))
        return;
    fputs(start, html);
    dpt_report_number(html, low, "%+.3g");
    fputs(" &hellip; ", html);
    dpt_report_number(html, high, "%+.3g");
    fputs("</small>", html);
}

/* The estimate with its interval over samples and, below, with that and the error of the rule. */
static void estimate_cell(FILE *html, const dpt_result_scalars *s) {
    fputs("<td>", html);
    dpt_report_number(html, s->estimate, "%+.3g");
    ends_line(html, "<small>", s->estimate_low, s->estimate_high);
    ends_line(html, "<small title=\"with the quadrature error\">q: ", s->estimate_combined_low,
              s->estimate_combined_high);
    fputs("</td>", html);
}

/* What the estimate misses, and the size of that by the slopes alone. */
static void miss_cell(FILE *html, const dpt_result_scalars *s) {
    fputs("<td>", html);
    dpt_report_number(html, s->error, "%+.2g");
    if (!isnan(s->estimate_quadrature)) {
        fputs("<small title=\"by the slopes alone\">&plusmn;", html);
        dpt_report_number(html, s->estimate_quadrature, "%.2g");
        fputs("</small>", html);
    }
    fputs("</td>", html);
}

static double relative_norm(const dpt_result *r) {
    double edit = 0.0;
    double delta = 0.0;
    for (int64_t i = 0; i < r->tensors; i++) {
        edit += isnan(r->stats[i].edit_norm) ? 0.0 : r->stats[i].edit_norm * r->stats[i].edit_norm;
        delta +=
            isnan(r->stats[i].delta_norm) ? 0.0 : r->stats[i].delta_norm * r->stats[i].delta_norm;
    }
    return delta > 0.0 ? sqrt(edit / delta) : NAN;
}

static void verdict_cell(FILE *html, const dpt_result *r) {
    fprintf(html, "<td class=\"l\"><span class=\"v\" style=\"background:#%06x\" title=\"",
            dpt_report_colour(r->verdict));
    dpt_report_text(html, r->reason);
    fputs("\">", html);
    dpt_report_text(html, r->verdict);
    fputs("</span></td>", html);
}

/* Why there is no margin, in the words of the section: the verdicts carry it as a tooltip only. */
static void no_margin(FILE *html, const dpt_result *r) {
    if (r->samples < 2)
        fputs(" No margin: a single sample has no interval; add samples.", html);
    else if (!isfinite(r->scalars.loss_pre) || !isfinite(r->scalars.loss_post))
        fputs(" No margin: a loss of the pair is not finite, and no verdict is given.", html);
    else if (isnan(r->scalars.gain))
        fputs(" No margin: the pre-trained loss is not known; give an absolute margin.", html);
    else if (isnan(r->scalars.gain_low))
        fputs(
            " No margin: the samples are one in effect, and the gain has no interval; add samples.",
            html);
    else if (r->scalars.gain_low > 0.0)
        fputs(" No margin: the post-trained loss is not clearly below that of one that knows "
              "nothing; "
              "give an absolute margin.",
              html);
    else if (!(r->scalars.gain_high < 0.0))
        fputs(" No margin: the post-training gain cannot be told from zero; give an absolute "
              "margin.",
              html);
}

/* A gain on which no verdict can stand. */
static void doubt(FILE *html, const dpt_result *r) {
    const dpt_result_scalars *s = &r->scalars;
    if (isnan(s->gain_low) || s->gain_low > 0.0)
        return;
    if (s->gain_high < 0.0)
        fputs("<p class=\"sub\"><strong>Warning: the post-trained model is worse than the "
              "pre-trained one on this data: are pre and post swapped?</strong> Nothing is called "
              "competitive, and no share of the gain is given.</p>\n",
              html);
    else
        fputs("<p class=\"sub\"><strong>Warning: the post-training gain cannot be told from "
              "zero on this data.</strong> No share of the gain is given.</p>\n",
              html);
}

/* The rule, and how many points it took: of auto each edit has its own. */
static void rule_text(FILE *html, const dpt_report_group *group) {
    int64_t least = group->units[0]->points, most = least;
    for (int64_t i = 1; i < group->count; i++) {
        int64_t points = group->units[i]->points;
        least = points < least ? points : least;
        most = points > most ? points : most;
    }
    fputs(", rule ", html);
    dpt_report_text(html, group->units[0]->rule);
    fputs(" with ", html);
    if (least < most)
        fprintf(html, "%" PRId64 " to ", least);
    fprintf(html, "%" PRId64 " point%s", most, most == 1 ? "" : "s");
}

/* What holds for all rows: samples, margin, means of the two models. */
static void facts(FILE *html, const dpt_report_group *group) {
    const dpt_result *r = group->units[0];
    const dpt_result_scalars *s = &r->scalars;
    fprintf(html, "<p class=\"sub\">%" PRId64 " samples, loss ", r->samples);
    dpt_report_text(html, r->loss);
    if (r->points > 0)
        rule_text(html, group);
    fputs(". Loss ", html);
    dpt_report_number(html, s->loss_pre, "%.4g");
    fputs(" pre-trained, ", html);
    dpt_report_number(html, s->loss_post, "%.4g");
    fputs(" post-trained; gain ", html);
    dpt_report_number(html, s->gain, "%.4g");
    fputs(" nats", html);
    if (!isnan(s->accuracy_post)) {
        fputs("; exact match ", html);
        dpt_report_number(html, 100.0 * s->accuracy_pre, "%.1f&thinsp;%%");
        fputs(" and ", html);
        dpt_report_number(html, 100.0 * s->accuracy_post, "%.1f&thinsp;%%");
    }
    if (!isnan(s->margin)) {
        fputs(". Equivalent within &plusmn;", html);
        dpt_report_number(html, s->margin, "%.3g");
        fputs(" nats", html);
        if (s->accuracy_margin > 0.0) {
            fputs(" and a fall of the accuracy by less than ", html);
            dpt_report_number(html, 100.0 * s->accuracy_margin, "%g");
            fputs(" points", html);
        }
    }
    fputc('.', html);
    if (dpt_result_is_clustered(r))
        fprintf(html, " Intervals and tests are of %.0f clusters.", s->clusters);
    if (isnan(s->margin))
        no_margin(html, r);
    fputs("</p>\n", html);
    doubt(html, r);
}

void dpt_report_verdicts(FILE *html, const dpt_report_group *group) {
    facts(html, group);
    fputs("<div class=\"wrap\"><table>\n<thead><tr><th>#</th><th class=\"l\">edit</th>"
          "<th class=\"l\">verdict</th><th>|E| / |&Delta;|</th><th>loss<br>edited</th><th>true "
          "change<br>[nats]</th>"
          "<th>share of<br>the gain</th><th>estimate<br>[nats]</th><th>quadrature<br>error</th>"
          "<th>second<br>order</th><th>p of no<br>change</th><th>p of no<br>equivalence</th>"
          "<th>exact<br>match</th></tr></thead>\n<tbody>\n",
          html);
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result *r = group->units[i];
        const dpt_result_scalars *s = &r->scalars;
        edit_cell(html, i + 1, r);
        verdict_cell(html, r);
        number_cell(html, relative_norm(r), "%.3g");
        number_cell(html, s->loss_edit, "%.4g");
        change_cell(html, s);
        interval_cell(html, 100.0 * s->share, 100.0 * s->share_low, 100.0 * s->share_high,
                      "%+.1f&thinsp;%%");
        estimate_cell(html, s);
        miss_cell(html, s);
        number_cell(html, s->second_order, "%+.3g");
        number_cell(html, isnan(s->p_adjusted) ? s->p_change : s->p_adjusted, "%.2g");
        number_cell(html, s->p_equivalent_adjusted, "%.2g");
        accuracy_cell(html, s);
        fputs("</tr>\n", html);
    }
    fputs(
        "</tbody></table></div>\n"
        "<p class=\"note\">Intervals are paired over samples; b: by bootstrap; few, of N: "
        "fewer samples in effect than the N from which an interval of changes so skewed is known "
        "to "
        "hold; below the exact match that of its change in points. Both p are corrected for the "
        "number of edits by Holm's "
        "method, "
        "the verdicts are not; no equivalence: the loss or the accuracy is beyond its margin. The "
        "estimate sums the inner "
        "products of gradient and edit along the path from the post-trained to the edited "
        "weights; its error is the estimate less the true change, and below it the size that the "
        "slopes "
        "alone give it; q: interval with both. Second order is half the "
        "curvature along the edit, averaged over the first interval of the path. A positive "
        "change hurts.</p>\n",
        html);
}

void dpt_report_seeds(FILE *html, const dpt_report_group *group) {
    const dpt_results *all = group->results;
    bool any = false;
    for (int64_t i = 0; i < all->nseeds; i++) {
        const dpt_result_seeds *s = &all->seeds[i];
        if (strcmp(s->data, group->data) != 0)
            continue;
        if (!any)
            fputs("<h3>Over seeds</h3>\n<div class=\"wrap\"><table>\n<thead><tr><th "
                  "class=\"l\">edit</th><th>seeds</th><th>true change<br>[nats]</th><th>sd</th>"
                  "<th>over seeds<br>and samples</th>"
                  "<th>estimate<br>[nats]</th><th>sd</th><th>share of<br>the gain</th>"
                  "<th>accuracy</th><th>sd</th></tr></thead>\n<tbody>\n",
                  html);
        any = true;
        fputs("<tr><td class=\"l e\">", html);
        dpt_report_text(html, s->edit);
        fprintf(html, "</td><td>%" PRId64 "</td>", s->count);
        interval_cell(html, s->change.mean, s->change.low, s->change.high, "%+.3g");
        number_cell(html, s->change.sd, "%.2g");
        fputs("<td>", html);
        interval_numbers(html, s->change.mean, s->crossed_low, s->crossed_high, "%+.3g");
        fputs(s->crossed_few == 1.0 ? "<small>few</small></td>" : "</td>", html);
        interval_cell(html, s->estimate.mean, s->estimate.low, s->estimate.high, "%+.3g");
        number_cell(html, s->estimate.sd, "%.2g");
        interval_cell(html, 100.0 * s->share.mean, 100.0 * s->share.low, 100.0 * s->share.high,
                      "%+.1f&thinsp;%%");
        interval_cell(html, 100.0 * s->accuracy.mean, 100.0 * s->accuracy.low,
                      100.0 * s->accuracy.high, "%.1f&thinsp;%%");
        number_cell(html, 100.0 * s->accuracy.sd, "%.2g&thinsp;%%");
        fputs("</tr>\n", html);
    }
    if (any)
        fputs("</tbody></table></div>\n<p class=\"note\">Edits that differ in their seed alone: "
              "means, standard deviations and Student's 95&thinsp;% intervals of the mean over "
              "seeds, on these samples; and of the true change the interval that also holds for "
              "other samples; few: two seeds, or too few samples, do not show how they are spread, "
              "and it may cover less.</p>\n",
              html);
}

static const char *parameter(const dpt_result *r, const char *name) {
    for (int64_t i = 0; i < r->nparameters; i++)
        if (strcmp(r->parameters[i].name, name) == 0)
            return r->parameters[i].value;
    return NULL;
}

static void text_cell(FILE *html, const char *text) {
    fputs("<td>", html);
    dpt_report_text(html, text != NULL ? text : "");
    fputs("</td>", html);
}

/* Alphas of the parts, "outside 0.1, layer0 0.2". */
static void parts_cell(FILE *html, const dpt_result *r) {
    static const char mark[] = "alpha_";
    const char *comma = "";
    fputs("<td class=\"l e\">", html);
    for (int64_t i = 0; i < r->nparameters; i++) {
        const dpt_result_parameter *p = &r->parameters[i];
        if (strncmp(p->name, mark, sizeof mark - 1) != 0 || strchr(p->value, ':') != NULL)
            continue;
        fputs(comma, html);
        dpt_report_text(html, p->name + sizeof mark - 1);
        fputc(' ', html);
        dpt_report_text(html, p->value);
        comma = ", ";
    }
    fputs("</td>", html);
}

void dpt_report_minima(FILE *html, const dpt_report_group *group) {
    bool any = false;
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result *r = group->units[i];
        if (parameter(r, "found_alpha") == NULL)
            continue;
        if (!any)
            fputs(
                "<h3>Minima along the delta</h3>\n<div class=\"wrap\"><table>\n<thead><tr><th "
                "class=\"l\">edit</th><th>chosen "
                "on</th><th>held<br>out</th><th>advice</th><th>slope "
                "at<br>post-trained</th><th>its "
                "interval</th><th>alpha of<br>the model</th><th>minimum</th><th>gradients</th><th>"
                "loss found</th><th class=\"l\">alpha of the parts</th></tr></thead>\n<tbody>\n",
                html);
        any = true;
        fputs("<tr><td class=\"l e\">", html);
        dpt_report_text(html, r->edit);
        fputs("</td>", html);
        text_cell(html, r->chosen_on);
        number_cell(html, 100.0 * r->scalars.held_out, "%.3g&thinsp;%%");
        static const char *const names[] = {"advice",      "slope_at_post", "slope_interval",
                                            "found_alpha", "trough",        "gradients",
                                            "found_loss"};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            text_cell(html, parameter(r, names[k]));
        parts_cell(html, r);
        fputs("</tr>\n", html);
    }
    if (any)
        fputs(
            "</tbody></table></div>\n<p class=\"note\">The slope is the derivative of the loss by "
            "alpha at the post-trained weights: below zero it pays to extrapolate, above zero to "
            "interpolate; where its interval holds zero alpha stays 0. The search is on the "
            "samples "
            "that the table names, of which those that judge here are held out as far as it "
            "says.</p>\n",
            html);
}

/* At each node of its own "-1.8" standard errors, and what the law says. */
static void correlation_cells(FILE *html, const dpt_result *r, int64_t most) {
    double se = r->scalars.correlation_se;
    const double *const rows[] = {r->path_correlation, r->path_correlation_law};
    for (int64_t c = 0; c < r->points; c++) {
        fprintf(html, "<td><small>t = %.3g</small>", r->nodes[c]);
        dpt_report_number(html, rows[0][c], "%+.2g");
        fputs("<small>", html);
        dpt_report_number(html, rows[0][c] / se, "%+.1f&thinsp;se");
        if (!isnan(rows[1][c])) {
            fputs(", law ", html);
            dpt_report_number(html, rows[1][c] / se, "%+.1f");
        }
        fputs("</small></td>", html);
    }
    for (int64_t c = r->points; c < most; c++)
        fputs("<td></td>", html);
}

void dpt_report_correlations(FILE *html, const dpt_report_group *group) {
    bool any = false;
    int64_t most = 0; /* rule auto takes nodes by edit */
    for (int64_t i = 0; i < group->count; i++)
        if (!isnan(group->units[i]->scalars.correlation_se) && group->units[i]->points > most)
            most = group->units[i]->points;
    for (int64_t i = 0; i < group->count; i++) {
        const dpt_result *r = group->units[i];
        if (isnan(r->scalars.correlation_se))
            continue;
        if (!any)
            fprintf(html,
                    "<h3>Mask and product along the path</h3>\n<div class=\"wrap\"><table>\n"
                    "<thead><tr><th class=\"l\">edit</th><th colspan=\"%" PRId64
                    "\">at each node t</th></tr></thead>\n<tbody>\n",
                    most);
        any = true;
        fputs("<tr><td class=\"l e\">", html);
        dpt_report_text(html, r->edit);
        fputs("</td>", html);
        correlation_cells(html, r, most);
        fputs("</tr>\n", html);
    }
    if (any)
        fputs(
            "</tbody></table></div>\n<p class=\"note\">Correlation of the mask (1 where dropped) "
            "and "
            "the products of gradient and delta over the entries of all tensors, and in its "
            "standard "
            "errors over masks. At t = 0 the gradient knows no mask: that cell tests the random "
            "numbers. Along the path the edit bends the slope against itself; the law says by how "
            "much "
            "to second order.</p>\n",
            html);
}

void dpt_report_edits(FILE *html, const dpt_report_group *group) {
    fputs("<div class=\"wrap\"><table>\n<thead><tr><th>#</th><th class=\"l\">edit</th>"
          "<th>|E| / |&Delta;|</th><th>seconds</th></tr></thead>\n<tbody>\n",
          html);
    for (int64_t i = 0; i < group->count; i++) {
        edit_cell(html, i + 1, group->units[i]);
        number_cell(html, relative_norm(group->units[i]), "%.4g");
        number_cell(html, group->units[i]->scalars.seconds, "%.3g");
        fputs("</tr>\n", html);
    }
    fputs("</tbody></table></div>\n", html);
}
