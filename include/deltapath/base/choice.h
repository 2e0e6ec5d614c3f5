#ifndef DELTAPATH_BASE_CHOICE_H
#define DELTAPATH_BASE_CHOICE_H

#include <stdio.h>

/** Position of a word among the choices "a|b|c", from 0; -1 when it is none of them. Local. */
int dpt_choice_find(const char *choices, const char *word);

/** Print the choices "a|b|c" as Markdown code: `a`, `b`, `c`. Local. */
void dpt_choice_print(FILE *file, const char *choices);

#endif
