/* Addresses of IPv4 on the command lines of traffic.c and streams.c. */
#ifndef BENCH_LATENCY_ADDRESS_H
#define BENCH_LATENCY_ADDRESS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads ADDRESS or ADDRESS:PORT; without a port it is 0. Ends the program, with its name in the message, for anything else. */
static struct sockaddr_in address_of(const char *program, const char *text) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  char host[64];
  const char *colon = strchr(text, ':');
  snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - text) : 63, text);
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    fprintf(stderr, "%s: %s is no address\n", program, text);
    exit(2);
  }
  if (colon) address.sin_port = htons((uint16_t)atoi(colon + 1));
  return address;
}

#endif
