// The C side of Underpass.kt: runs tun2socks on the descriptor of Android's VpnService.
//   cc -shared -fPIC -I$JAVA_HOME/include -I$JAVA_HOME/include/linux underpass_jni.c -o libunderpass_jni.so -lunderpass
#include <fcntl.h>
#include <jni.h>
#include <stdio.h>
#include <stdlib.h>
#include <underpass.h>

typedef struct tunnel {
  underpass_tun2socks *tun2socks;
  JavaVM *machine;
  // The VpnService, and its method.
  jobject service;
  jmethodID protect;
} tunnel;

// The library calls this on the instance's thread, which stays attached to Java from then until it ends.
static int on_protect(void *data, intptr_t socket) {
  tunnel *tunnel = data;
  JNIEnv *env;
  if ((*tunnel->machine)->AttachCurrentThreadAsDaemon(tunnel->machine, (void *)&env, NULL) != JNI_OK) return 1;
  jboolean is_good = (*env)->CallBooleanMethod(env, tunnel->service, tunnel->protect, (jint)socket);
  if ((*env)->ExceptionCheck(env)) {
    (*env)->ExceptionClear(env);
    return 1;
  }
  return is_good ? 0 : 1;
}

static void on_stopped(void *data, int status) {
  tunnel *tunnel = data;
  (void)status;
  // The thread was attached if it opened any socket.
  (*tunnel->machine)->DetachCurrentThread(tunnel->machine);
}

// Returns a handle; 0 after an exception.
JNIEXPORT jlong JNICALL Java_example_Underpass_start(JNIEnv *env, jobject self, jobject service, jint descriptor,
                                                     jstring server, jbyteArray key, jstring config) {
  (void)self;
  tunnel *tunnel = calloc(1, sizeof *tunnel);
  const char *server_text = (*env)->GetStringUTFChars(env, server, NULL);
  const char *config_text = (*env)->GetStringUTFChars(env, config, NULL);
  jbyte *key_bytes = (*env)->GetByteArrayElements(env, key, NULL);
  char device[16];
  snprintf(device, sizeof device, "fd:%d", (int)descriptor);
  fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
  underpass_tun2socks_options options = {.size = sizeof options,
                                         .server = server_text,
                                         .psk = key_bytes,
                                         .psk_bytes = (size_t)(*env)->GetArrayLength(env, key),
                                         .device = device,
                                         .config = config_text};
  underpass_callbacks callbacks = {.size = sizeof callbacks, .stopped = on_stopped, .protect = on_protect};
  int status = UNDERPASS_ERR_RESOURCE;
  if (tunnel != NULL) {
    (*env)->GetJavaVM(env, &tunnel->machine);
    tunnel->service = (*env)->NewGlobalRef(env, service);
    jclass class = (*env)->GetObjectClass(env, service);
    tunnel->protect = (*env)->GetMethodID(env, class, "protect", "(I)Z");
    if (tunnel->protect != NULL) status = underpass_tun2socks_start(&options, &callbacks, tunnel, &tunnel->tun2socks);
  }
  (*env)->ReleaseByteArrayElements(env, key, key_bytes, JNI_ABORT);
  (*env)->ReleaseStringUTFChars(env, config, config_text);
  (*env)->ReleaseStringUTFChars(env, server, server_text);
  if (status == 0) return (jlong)(intptr_t)tunnel;
  if (tunnel != NULL) (*env)->DeleteGlobalRef(env, tunnel->service);
  free(tunnel);
  if (!(*env)->ExceptionCheck(env))
    (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/IllegalStateException"), underpass_error_text());
  return 0;
}

JNIEXPORT void JNICALL Java_example_Underpass_networkChanged(JNIEnv *env, jobject self, jlong handle) {
  (void)env, (void)self;
  underpass_tun2socks_network_changed(((tunnel *)(intptr_t)handle)->tun2socks);
}

// Waits until the instance has stopped.
JNIEXPORT void JNICALL Java_example_Underpass_stop(JNIEnv *env, jobject self, jlong handle) {
  (void)self;
  tunnel *tunnel = (struct tunnel *)(intptr_t)handle;
  underpass_tun2socks_free(tunnel->tun2socks);
  (*env)->DeleteGlobalRef(env, tunnel->service);
  free(tunnel);
}
