# For 64-bit ARM on another machine (Debian: g++-aarch64-linux-gnu), against the package for that architecture:
#   pip download --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 executorch==1.5.1 && unzip executorch-*.whl -d build/aarch64
#   cmake -S examples/executorch_cpp -B build/et-arm -DCMAKE_TOOLCHAIN_FILE=aarch64-linux-gnu.cmake -DCMAKE_PREFIX_PATH=$PWD/build/aarch64/executorch
# Under emulation: QEMU_LD_PREFIX=/usr/aarch64-linux-gnu QEMU_SET_ENV=LD_LIBRARY_PATH=$PWD/build/aarch64/executorch/lib qemu-aarch64 …
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
