#include "guest.h"

static void link_to(guest **list, guest *guest) {
  guest->next = *list;
  guest->link = list;
  if (guest->next != NULL) guest->next->link = &guest->next;
  *list = guest;
}

static void link_stirred(guest **list, guest *guest) {
  guest->next_stirred = *list;
  guest->stirred_link = list;
  if (guest->next_stirred != NULL) guest->next_stirred->stirred_link = &guest->next_stirred;
  *list = guest;
}

static void unlink_stirred(guest *guest) {
  if (guest->stirred_link == NULL) return;
  *guest->stirred_link = guest->next_stirred;
  if (guest->next_stirred != NULL) guest->next_stirred->stirred_link = guest->stirred_link;
  guest->stirred_link = NULL;
}

bool guest_join(guest *guest, const guest_kind *kind, instance *instance) {
  if (uv_mutex_init(&guest->mutex) != 0) return false;
  guest->kind = kind;
  guest->references = 2;
  guest->instance = instance;
  uv_mutex_lock(&instance->mutex);
  bool can_join = instance->can_wake;
  if (can_join) link_to(&instance->guests, guest);
  uv_mutex_unlock(&instance->mutex);
  if (!can_join) uv_mutex_destroy(&guest->mutex);
  return can_join;
}

void guest_stir(guest *guest) {
  instance *instance = guest->instance;
  if (instance == NULL || guest->is_stirred) return;
  guest->is_stirred = true;
  uv_mutex_lock(&instance->mutex);
  link_stirred(&instance->stirred, guest);
  if (instance->can_wake) uv_async_send(&instance->wake);
  uv_mutex_unlock(&instance->mutex);
}

void guest_release(guest *guest) {
  uv_mutex_lock(&guest->mutex);
  bool is_last = --guest->references == 0;
  uv_mutex_unlock(&guest->mutex);
  if (!is_last) return;
  uv_mutex_destroy(&guest->mutex);
  guest->kind->destroy(guest);
}

void guest_leave(guest *guest) {
  uv_mutex_lock(&guest->mutex);
  instance *instance = guest->instance;
  guest->instance = NULL;
  if (instance != NULL) {
    uv_mutex_lock(&instance->mutex);
    *guest->link = guest->next;
    if (guest->next != NULL) guest->next->link = guest->link;
    unlink_stirred(guest);
    uv_mutex_unlock(&instance->mutex);
  }
  uv_mutex_unlock(&guest->mutex);
  if (instance == NULL) return;
  guest->kind->leave(guest);
  guest_release(guest);
}

void guests_handle(instance *instance) {
  // Guests that are stirred meanwhile wait for the next turn.
  guest *due = NULL;
  uv_mutex_lock(&instance->mutex);
  while (instance->stirred != NULL) {
    guest *guest = instance->stirred;
    unlink_stirred(guest);
    link_stirred(&due, guest);
  }
  uv_mutex_unlock(&instance->mutex);
  for (;;) {
    uv_mutex_lock(&instance->mutex);
    guest *guest = due;
    if (guest != NULL) unlink_stirred(guest);
    uv_mutex_unlock(&instance->mutex);
    if (guest == NULL) return;
    uv_mutex_lock(&guest->mutex);
    guest->is_stirred = false;
    uv_mutex_unlock(&guest->mutex);
    guest->kind->handle(guest);
  }
}

void guests_leave(instance *instance) {
  for (;;) {
    uv_mutex_lock(&instance->mutex);
    guest *guest = instance->guests;
    uv_mutex_unlock(&instance->mutex);
    if (guest == NULL) return;
    guest_leave(guest);
  }
}
