{
  "variables": { "sanitize%": "", "lwip%": "" },
  "targets": [
    {
      "target_name": "underpass",
      "sources": [
        "io/loop/loop.c", "io/loop/watcher.c", "io/loop/latency.c",
        "io/socket/address.c", "io/socket/socket.c",
        "io/udp/udp.c", "io/udp/receive.c", "io/udp/send.c", "io/udp/errors.c", "io/udp/locals.c", "io/udp/packet-info.c",
        "io/udp/udp-linux.c", "io/udp/udp-singly.c", "io/udp/udp-bsd.c", "io/udp/udp-windows.c",
        "io/tcp/listen.c", "io/tcp/connect.c", "io/tcp/stream.c", "io/tcp/options.c",
        "io/shortcut/table.c", "io/shortcut/out.c", "io/shortcut/in.c", "io/shortcut/capsule-batch.c",
        "io/shortcut/packets-out.c", "io/shortcut/packets-in.c",
        "io/service/notify.c", "io/service/sealed-memory.c",
        "io/tun/tun.c", "io/tun/tun-linux.c", "io/tun/tun-macos.c", "io/tun/interfaces.c", "io/tun/sock-diag.c",
        "io/lwip/stack.c", "io/lwip/segments.c", "io/lwip/flow.c", "io/lwip/ip-layer.c", "io/lwip/checksum.c",
        "io/lwip/heap.c", "io/lwip/lock.c", "io/lwip/lwip.c",
        "napi/module.c", "napi/values.c", "napi/udp.c", "napi/tcp.c", "napi/stream.c", "napi/shortcut.c", "napi/tun.c",
        "napi/tcp-stack.c", "napi/interfaces.c", "napi/service.c"
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      "cflags": ["-std=c11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
      "xcode_settings": { "OTHER_CFLAGS": ["-std=c11", "-O2", "-Wall", "-fvisibility=hidden"] },
      "conditions": [
        ["lwip!=''", {
          "defines": ["UNDERPASS_LWIP"],
          "include_dirs": ["lwip", "<(lwip)/src", "<(lwip)/src/include"]
        }],
        ["OS=='win'", { "libraries": ["ws2_32.lib"] }],
        ["sanitize!=''", {
          "cflags": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-g", "-O1"],
          "ldflags": ["-fsanitize=<(sanitize)"]
        }]
      ]
    }
  ]
}
