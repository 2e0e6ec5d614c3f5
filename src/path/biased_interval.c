#include "deltapath/path/biased_interval.h"

#include "deltapath/base/student.h"

#include <math.h>

enum { HALVINGS = 80 };

/* P(|T se + bias| <= reach). */
static double biased_cover(double reach, double se, double bias, double df) {
    return dpt_student_cdf((reach - bias) / se, df) - dpt_student_cdf((-reach - bias) / se, df);
}

/* Half of the length. */
static double biased_reach(double se, double bias, double df, double confidence) {
    bias = fabs(bias);
    if (isnan(se) || isnan(bias) || isnan(df) || !(confidence > 0.0 && confidence < 1.0))
        return NAN;
    if (!(se > 0.0))
        return bias;
    double low = 0.0;
    double high = bias + dpt_student_quantile(0.5 * (1.0 + confidence), df) * se;
    for (int i = 0; i < HALVINGS; i++) {
        double middle = 0.5 * (low + high);
        if (biased_cover(middle, se, bias, df) < confidence)
            low = middle;
        else
            high = middle;
    }
    return high;
}

dpt_interval dpt_biased_interval(const dpt_interval *sampled, double error, double bias, double df,
                                 double confidence) {
    dpt_interval out = *sampled;
    out.se = hypot(sampled->se, error);
    double reach = biased_reach(out.se, bias, df, confidence);
    out.low = sampled->mean - reach;
    out.high = sampled->mean + reach;
    if (!(sampled->se > 0.0))
        return out;
    double more = reach - biased_reach(out.se, 0.0, df, confidence);
    double times = out.se / sampled->se;
    out.low = sampled->mean - times * (sampled->mean - sampled->low) - more;
    out.high = sampled->mean + times * (sampled->high - sampled->mean) + more;
    return out;
}
