/* words.h - argument lists as they come in a message, and the search for a program.
 *
 * Runs in the reaper and its children. Owns nothing.
 */
#ifndef SBX_WORDS_H
#define SBX_WORDS_H

#include <stdint.h>

/* Split `n` words off the NUL-terminated strings at *s. NULL-terminated array that the
 * caller frees, or NULL if they end early. */
char **sbx_words(char **s, const char *end, uint32_t n);

/* execve(2), the program looked up in PATH of envp when its name has no slash, as
 * execvp(3) does. Raw calls only (it runs after vfork). Returns only on failure: the
 * errno, positive. */
int sbx_exec(char *const *argv, char *const *envp);

#endif
