// Runs the engine of an edgeopt bundle for OpenVINO: openvino_cpp ENGINE OPTIONS INPUT... > OUTPUTS
//
//   ENGINE   model.xml, or model.blob with model.xml beside it
//   OPTIONS  the manifest's engine properties, one "NAME VALUE" per line (run.py writes them)
//   INPUT    raw little-endian numbers, one file per input in the engine's order, at the engine's shape
//
// Writes the outputs' raw numbers, one after another, to stdout, and what it did to stderr.

#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

namespace fs = std::filesystem;

namespace {

constexpr int kRepeats = 20;

ov::AnyMap read_properties(const fs::path& path, std::string& device) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("The options cannot be read: " + path.string());
    ov::AnyMap properties;
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string name, value;
        if (!(words >> name >> value)) continue;
        if (name == "device") {
            device = value;
        } else {
            properties[name] = value;  // OpenVINO reads its properties from text
        }
    }
    return properties;
}

// The compiled model where it is for this OpenVINO and this CPU, else the IR beside it.
ov::CompiledModel open(ov::Core& core, const fs::path& engine, const std::string& device, const ov::AnyMap& properties) {
    if (engine.extension() == ".blob") {
        std::ifstream blob(engine, std::ios::binary);
        if (!blob) throw std::runtime_error("The engine cannot be read: " + engine.string());
        try {
            return core.import_model(blob, device, properties);
        } catch (const ov::Exception& error) {
            std::cerr << "The compiled model is not for here, the IR is compiled instead: " << error.what() << '\n';
        }
    }
    fs::path xml = engine;
    return core.compile_model(xml.replace_extension(".xml").string(), device, properties);
}

void fill(ov::Tensor& tensor, const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file && bytes.empty()) throw std::runtime_error("The input cannot be read: " + path.string());
    if (bytes.size() != tensor.get_byte_size()) {
        throw std::runtime_error("The input " + path.string() + " has " + std::to_string(bytes.size()) +
                                 " bytes; the engine takes " + std::to_string(tensor.get_byte_size()));
    }
    std::memcpy(tensor.data(), bytes.data(), bytes.size());
}

int run(int argc, char** argv) {
    if (argc < 4) throw std::runtime_error("Usage: openvino_cpp ENGINE OPTIONS INPUT... > OUTPUTS");
    std::string device = "CPU";
    const ov::AnyMap properties = read_properties(argv[2], device);
    ov::Core core;
    ov::CompiledModel compiled = open(core, argv[1], device, properties);
    if (compiled.inputs().size() != static_cast<std::size_t>(argc - 3)) {
        throw std::runtime_error("The engine takes " + std::to_string(compiled.inputs().size()) + " inputs; received " +
                                 std::to_string(argc - 3));
    }
    ov::InferRequest request = compiled.create_infer_request();
    for (int index = 0; index < argc - 3; ++index) {
        ov::Tensor tensor = request.get_input_tensor(static_cast<std::size_t>(index));
        fill(tensor, argv[index + 3]);
    }
    request.infer();
    const auto start = std::chrono::steady_clock::now();
    for (int repeat = 0; repeat < kRepeats; ++repeat) request.infer();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    for (std::size_t index = 0; index < compiled.outputs().size(); ++index) {
        const ov::Tensor tensor = request.get_output_tensor(index);
        std::cout.write(static_cast<const char*>(tensor.data()), static_cast<std::streamsize>(tensor.get_byte_size()));
        std::cerr << "output " << compiled.output(index).get_any_name() << ' ' << tensor.get_shape() << '\n';
    }
    std::cerr << ov::get_openvino_version().buildNumber << " on " << device << ", " << took.count() / kRepeats
              << " ms per inference (mean of " << kRepeats << ")\n";
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
