// Forwards UDP port 5353 of this machine through a tunnel to the DNS server 9.9.9.9: forward SERVER:PORT PSK [LISTEN=TARGET]
//   cc forward.c -o forward $(pkg-config --cflags --libs underpass)
#include <stdio.h>
#include <string.h>
#include <underpass.h>

static void on_ready(void *user_data, const underpass_addresses *addresses) {
  (void)user_data;
  printf("send datagrams to %s\n", addresses->listen[0]);
  fflush(stdout);
}

static void on_unreachable(void *user_data, int status, const char *text) {
  (void)user_data;
  fprintf(stderr, "%s: %s\n", underpass_error_name(status), text);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: forward SERVER:PORT PSK [LISTEN=TARGET]\n");
    return 2;
  }
  const char *forwards[] = {argc > 3 ? argv[3] : "127.0.0.1:5353=9.9.9.9:53"};
  underpass_callbacks callbacks = {.size = sizeof callbacks, .ready = on_ready, .unreachable = on_unreachable};
  underpass_local_options options = {.size = sizeof options, .server = argv[1], .psk = argv[2]};
  options.psk_bytes = strlen(argv[2]);
  options.forwards = forwards;
  options.forward_count = 1;

  underpass_local *local;
  int status = underpass_local_start(&options, &callbacks, NULL, &local);
  if (status != 0) {
    fprintf(stderr, "%s\n", underpass_error_text());
    return 1;
  }
  getchar();
  underpass_local_free(local);
  return 0;
}
