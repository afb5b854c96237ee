// An object of the embedder besides the instance: a stream, an association, a way for packets. Any thread may pass something to it, and it
// calls back on the instance's thread. It outlives the instance for as long as its owner holds it.
#ifndef UNDERPASS_GUEST_H
#define UNDERPASS_GUEST_H

#include "../instance.h"

typedef struct guest guest;

typedef struct guest_kind {
  // Something was passed in since the last call. Called on the instance's thread.
  void (*handle)(guest *guest);
  // The instance releases the guest. Calls its owner back for the last time. Called once, on the instance's thread.
  void (*leave)(guest *guest);
  // Frees the guest.
  void (*destroy)(guest *guest);
} guest_kind;

struct guest {
  const guest_kind *kind;
  // Guards the next three fields, and what threads share of its kind. Locked before the instance's mutex.
  uv_mutex_t mutex;
  // One of the owner, and one of the instance.
  int references;
  // NULL once the instance has released it.
  instance *instance;
  bool is_stirred;
  // Guarded by the instance: links of the list of all guests, and of the stirred ones.
  guest *next, **link;
  guest *next_stirred, **stirred_link;
};

// Adds the guest to an instance, with two references. Returns false if the instance is ending or there is no memory; then nothing
// has to be destroyed. May be called from any thread.
bool guest_join(guest *guest, const guest_kind *kind, instance *instance);
// Schedules the guest to be handled. Its mutex must be locked.
void guest_stir(guest *guest);
// Releases the owner's reference, as the owner's last call. May be called from any thread.
void guest_release(guest *guest);
// Makes the instance release the guest. On the instance's thread.
void guest_leave(guest *guest);

// On the instance's thread.
void guests_handle(instance *instance);
void guests_leave(instance *instance);

#endif
