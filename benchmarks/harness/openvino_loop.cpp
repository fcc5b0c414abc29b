// OpenVINO's own C++ loop: what an application in C++ would see. Commands on standard input, one line of answer each:
//   warm N        run N times; prints "ok"
//   time N        run N times; prints N times in nanoseconds
//   output FILE   writes the first output's float32 values as they lie in memory; prints their count
// Arguments: MODEL.xml THREADS INPUT, INPUT being the raw bytes of the model's only input.

#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: openvino_loop MODEL.xml THREADS INPUT\n";
        return 2;
    }
    ov::Core core;
    // The same properties as edgeopt/agent/runners/openvino.py.
    ov::AnyMap properties{
        {ov::hint::performance_mode.name(), ov::hint::PerformanceMode::LATENCY},
        {ov::num_streams.name(), ov::streams::Num(1)},
        {ov::hint::inference_precision.name(), ov::element::f32},
        {ov::hint::dynamic_quantization_group_size.name(), uint64_t(0)},
        {ov::hint::enable_cpu_pinning.name(), false},
        {ov::inference_num_threads.name(), std::stoi(argv[2])},
    };
    auto compiled = core.compile_model(core.read_model(argv[1]), "CPU", properties);
    auto request = compiled.create_infer_request();

    std::ifstream file(argv[3], std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    ov::Tensor input(compiled.input().get_element_type(), compiled.input().get_shape());
    if (bytes.size() != input.get_byte_size()) {
        std::cerr << "the input has " << bytes.size() << " bytes; the model takes " << input.get_byte_size() << "\n";
        return 1;
    }
    std::memcpy(input.data(), bytes.data(), bytes.size());
    request.set_input_tensor(input);

    std::string command;
    while (std::cin >> command) {
        if (command == "warm") {
            int n;
            std::cin >> n;
            for (int i = 0; i < n; ++i) request.infer();
            std::cout << "ok" << std::endl;
        } else if (command == "time") {
            int n;
            std::cin >> n;
            std::vector<long long> took(n);
            for (int i = 0; i < n; ++i) {
                auto start = std::chrono::steady_clock::now();
                request.infer();
                auto end = std::chrono::steady_clock::now();
                took[i] = std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count();
            }
            for (long long ns : took) std::cout << ns << ' ';
            std::cout << std::endl;
        } else if (command == "output") {
            std::string name;
            std::cin >> name;
            auto output = request.get_output_tensor(0);
            std::ofstream(name, std::ios::binary).write(static_cast<const char*>(output.data()), output.get_byte_size());
            std::cout << output.get_size() << std::endl;
        } else {
            std::cerr << "no such command: " << command << "\n";
            return 2;
        }
    }
    return 0;
}
