/* Written by tools/reference/logits_golden.py. */
#ifndef DELTAPATH_LOGITS_GOLDEN_H
#define DELTAPATH_LOGITS_GOLDEN_H

/* How often vit/tiny is right under random edits: of dare with p and k, or of drop with p, whose k is -1. */
typedef struct logits_edit {
    double p, k, accuracy, sd, plain, masks;
} logits_edit;

static const logits_edit logits_edits[] = {
    {0.3, 0.0, 7.217870e-01, 1.191878e-01, 7.524810e-01, 7.191000e-01},
    {0.6, 0.5, 7.312820e-01, 1.110452e-01, 7.574110e-01, 7.233000e-01},
    {0.3, -1.0, 7.495640e-01, 9.400324e-02, 7.675590e-01, 7.369000e-01},
};

#endif
