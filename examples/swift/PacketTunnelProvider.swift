// A packet tunnel for iOS and macOS on the C library: UDP goes through the tunnel, TCP to a SOCKS5 server.
// NOT COMPILED: no Swift compiler was available. A module map makes the library a module:
//   module CUnderpass { header "underpass.h" link "underpass" export * }
import CUnderpass
import Network
import NetworkExtension

final class PacketTunnelProvider: NEPacketTunnelProvider {
  private var tunnel: OpaquePointer?
  private let monitor = NWPathMonitor()
  private var isFirstPath = true

  override func startTunnel(options: [String: NSObject]?, completionHandler: @escaping (Error?) -> Void) {
    let settings = NEPacketTunnelNetworkSettings(tunnelRemoteAddress: "192.0.2.1")
    let ipv4 = NEIPv4Settings(addresses: ["198.18.0.1"], subnetMasks: ["255.255.255.252"])
    ipv4.includedRoutes = [NEIPv4Route.default()]
    settings.ipv4Settings = ipv4
    settings.mtu = 1500
    setTunnelNetworkSettings(settings) { [weak self] error in
      guard let self, error == nil else { return completionHandler(error) }
      completionHandler(self.start())
    }
  }

  private func start() -> Error? {
    var callbacks = underpass_callbacks()
    callbacks.size = MemoryLayout<underpass_callbacks>.size
    // A C function cannot capture variables, so `user_data` is the provider, which outlives the tunnel.
    callbacks.packets = { userData, packets, count in
      let provider = Unmanaged<PacketTunnelProvider>.fromOpaque(userData!).takeUnretainedValue()
      let batch = UnsafeBufferPointer(start: packets, count: count)
      // The packets are valid only until this returns, so copy them.
      let datas = batch.map { Data(bytes: $0.data, count: $0.bytes) }
      let families = datas.map { NSNumber(value: $0.first! >> 4 == 6 ? AF_INET6 : AF_INET) }
      provider.packetFlow.writePackets(datas, withProtocols: families)
    }
    callbacks.stopped = { userData, status in
      guard status != 0 else { return }
      let provider = Unmanaged<PacketTunnelProvider>.fromOpaque(userData!).takeUnretainedValue()
      provider.cancelTunnelWithError(TunnelError(status: status))
    }
    let userData = Unmanaged.passUnretained(self).toOpaque()
    let key = "a pre-shared key of 16 bytes or more"
    let status = "192.0.2.1:3456".withCString { server in
      "{\"tcp-via\": \"socks5://192.0.2.1:1080\"}".withCString { config in
        key.withCString { psk in
          var options = underpass_tun2socks_options()
          options.size = MemoryLayout<underpass_tun2socks_options>.size
          options.server = server
          options.psk = UnsafeRawPointer(psk)
          options.psk_bytes = strlen(psk)
          options.config = config
          return underpass_tun2socks_start(&options, &callbacks, userData, &tunnel)
        }
      }
    }
    if status != 0 { return TunnelError(status: status) }
    readPackets()
    monitor.pathUpdateHandler = { [weak self] _ in
      guard let self, let tunnel = self.tunnel else { return }
      // The first path is the one that the tunnel started on.
      if !self.isFirstPath { underpass_tun2socks_network_changed(tunnel) }
      self.isFirstPath = false
    }
    monitor.start(queue: .global())
    return nil
  }

  private func readPackets() {
    packetFlow.readPackets { [weak self] datas, _ in
      guard let self, let tunnel = self.tunnel else { return }
      // All packets share one buffer.
      let all = datas.reduce(into: Data()) { $0.append($1) }
      all.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) in
        var offset = 0
        let packets = datas.map { data -> underpass_packet in
          defer { offset += data.count }
          return underpass_packet(data: bytes.baseAddress! + offset, bytes: data.count)
        }
        // Packets that the library does not accept are lost, as on any network.
        _ = underpass_tun2socks_packets(tunnel, packets, packets.count)
      }
      self.readPackets()
    }
  }

  override func stopTunnel(with reason: NEProviderStopReason, completionHandler: @escaping () -> Void) {
    monitor.cancel()
    let ended = tunnel
    tunnel = nil
    // Waits until the instance has stopped.
    DispatchQueue.global().async {
      underpass_tun2socks_free(ended)
      completionHandler()
    }
  }
}

struct TunnelError: Error, CustomStringConvertible {
  let status: Int32

  var description: String {
    underpass_error_name(status).map { String(cString: $0) } ?? "error \(status)"
  }
}
