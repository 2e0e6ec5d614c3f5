#ifndef DELTAPATH_BASE_CHOICE_H
#define DELTAPATH_BASE_CHOICE_H

/** Position of a word among the choices "a|b|c", from 0; -1 when it is none of them. Local. */
int dpt_choice_find(const char *choices, const char *word);

#endif
