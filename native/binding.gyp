{
  "variables": { "sanitize%": "" },
  "targets": [
    {
      "target_name": "underpass",
      "sources": ["module.c", "watcher.c", "address.c", "udp.c", "tcp.c", "tun.c", "connect.c", "stream.c", "latency.c", "sock-diag.c"],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      "cflags": ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"],
      "xcode_settings": { "OTHER_CFLAGS": ["-std=c11", "-O2", "-Wall", "-fvisibility=hidden"] },
      "conditions": [
        ["OS=='win'", { "libraries": ["ws2_32.lib"] }],
        ["sanitize!=''", {
          "cflags": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-g", "-O1"],
          "ldflags": ["-fsanitize=<(sanitize)"]
        }]
      ]
    }
  ]
}
