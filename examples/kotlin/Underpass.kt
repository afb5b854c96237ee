// The Kotlin side of underpass_jni.c: an Android VPN service that sends UDP through a tunnel and TCP to a SOCKS5 server.
// NOT COMPILED: no Kotlin compiler and no Android SDK were available. underpass_jni.c was compiled.
package example

import android.content.Intent
import android.net.ConnectivityManager
import android.net.Network
import android.net.VpnService

object Underpass {
    init {
        System.loadLibrary("underpass_jni")
    }

    /** Takes ownership of the descriptor. @return a handle. @throws IllegalStateException with the reason */
    external fun start(service: VpnService, descriptor: Int, server: String, key: ByteArray, config: String): Long

    external fun networkChanged(handle: Long)

    /** Waits until the instance has stopped. */
    external fun stop(handle: Long)
}

class TunnelService : VpnService() {
    private var handle = 0L

    private val callback = object : ConnectivityManager.NetworkCallback() {
        override fun onAvailable(network: Network) {
            synchronized(this@TunnelService) { if (handle != 0L) Underpass.networkChanged(handle) }
        }
    }

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        val device = Builder()
            // tun2socks expects this address.
            .addAddress("198.18.0.1", 30)
            .addAddress("fd75:6e64:7270::1", 126)
            .addRoute("0.0.0.0", 0)
            .addRoute("::", 0)
            .setMtu(1500)
            .establish() ?: return START_NOT_STICKY
        val key = "a pre-shared key of 16 bytes or more".toByteArray()
        val config = """{"tcp-via": "socks5://192.0.2.1:1080"}"""
        synchronized(this) { handle = Underpass.start(this, device.detachFd(), "192.0.2.1:3456", key, config) }
        getSystemService(ConnectivityManager::class.java).registerDefaultNetworkCallback(callback)
        return START_STICKY
    }

    override fun onDestroy() {
        getSystemService(ConnectivityManager::class.java).unregisterNetworkCallback(callback)
        synchronized(this) {
            if (handle != 0L) Underpass.stop(handle)
            handle = 0L
        }
        super.onDestroy()
    }
}
