// What an embedder holds beside the instance: a stream, an association, a way for packets. Any thread may give it something, and it
// calls back on the instance's thread. It outlives the instance for as long as its owner has it.
#ifndef UNDERPASS_GUEST_H
#define UNDERPASS_GUEST_H

#include "../instance.h"

typedef struct guest guest;

typedef struct guest_kind {
  // Something was given since the last call. On the instance's thread.
  void (*handle)(guest *guest);
  // The instance lets go of it. Calls its owner back for the last time. On the instance's thread, once.
  void (*leave)(guest *guest);
  // Frees it.
  void (*destroy)(guest *guest);
} guest_kind;

struct guest {
  const guest_kind *kind;
  // Guards the next three, and what the threads share of its kind. Locked before that of the instance.
  uv_mutex_t mutex;
  // Its owner's, and the instance's.
  int references;
  // NULL once it has let go.
  instance *instance;
  bool is_stirred;
  // Guarded by the instance: all of it, and those that are stirred.
  guest *next, **link;
  guest *next_stirred, **stirred_link;
};

// Makes it one of the instance's, with two references. Returns false if the instance ends or there is no memory; then nothing is
// to be destroyed. From any thread.
bool guest_join(guest *guest, const guest_kind *kind, instance *instance);
// Has it handled. With its mutex locked.
void guest_stir(guest *guest);
// The owner's last word. From any thread.
void guest_release(guest *guest);
// On the instance's thread: has the instance let go of it.
void guest_leave(guest *guest);

// On the instance's thread.
void guests_handle(instance *instance);
void guests_leave(instance *instance);

#endif
