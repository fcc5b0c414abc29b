// Runs an ExecuTorch program (model.pte) without Python: reads float32 inputs, writes the first output, says the time.
//
//   et_run model.pte input.f32 output.f32 1 3 224 224
//
// input.f32 holds whole inputs one after another, in C order; output.f32 gets one output per input.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::Error;

namespace {

int fail(const char* what, int code = 1) {
  std::fprintf(stderr, "et_run: %s (%d)\n", what, code);
  return EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return fail("usage: et_run model.pte input.f32 output.f32 DIM...");
  std::vector<executorch::aten::SizesType> shape;
  for (int i = 4; i < argc; ++i) shape.push_back(std::atoi(argv[i]));
  const size_t size = std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>());
  if (size == 0) return fail("a dimension is not a positive number");

  Module module(argv[1]);
  if (const Error error = module.load_forward(); error != Error::Ok) return fail("cannot load the program", int(error));
  std::FILE* in = std::fopen(argv[2], "rb");
  std::FILE* out = std::fopen(argv[3], "wb");
  if (in == nullptr || out == nullptr) return fail("cannot open the input or the output");

  std::vector<float> sample(size);
  double best_ms = 1e30;
  size_t count = 0;
  while (std::fread(sample.data(), sizeof(float), size, in) == size) {
    auto tensor = from_blob(sample.data(), shape, ScalarType::Float);
    const auto start = std::chrono::steady_clock::now();
    const auto result = module.forward(tensor);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    if (!result.ok()) return fail("cannot run the program", int(result.error()));
    const auto output = result->at(0).toTensor();
    if (output.scalar_type() != ScalarType::Float) return fail("the first output is not float32");
    std::fwrite(output.const_data_ptr<float>(), sizeof(float), output.numel(), out);
    best_ms = std::min(best_ms, took.count());
    ++count;
  }
  std::fclose(in);
  std::fclose(out);
  if (count == 0) return fail("the input holds no whole sample");
  std::printf("%zu inferences, the fastest %.3f ms\n", count, best_ms);
  return EXIT_SUCCESS;
}
