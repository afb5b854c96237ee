// The lock for lwIP's variables.
#ifndef UNDERPASS_STACK_LOCK_H
#define UNDERPASS_STACK_LOCK_H

void stack_lock(void);
void stack_unlock(void);

#endif
