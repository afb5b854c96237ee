# Linux x86-64 with musl, by Debian's musl-tools: one program without anything beside it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER musl-gcc)
# musl-tools has no headers of the kernel.
foreach(folder /usr/include/linux /usr/include/asm-generic /usr/include/x86_64-linux-gnu/asm)
  get_filename_component(name ${folder} NAME)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/kernel-headers)
  file(CREATE_LINK ${folder} ${CMAKE_BINARY_DIR}/kernel-headers/${name} SYMBOLIC)
endforeach()
set(CMAKE_C_FLAGS_INIT "-isystem ${CMAKE_BINARY_DIR}/kernel-headers")
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
