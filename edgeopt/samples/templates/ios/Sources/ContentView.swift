import PhotosUI
import SwiftUI

/// Runs the bundle's self-test and times it, per provider; classifies a picture where the model takes one.
struct ContentView: View {
    @State private var log = ""
    @State private var picture: PhotosPickerItem?

    var body: some View {
        VStack(spacing: 12) {
            ForEach(Provider.allCases, id: \.self) { provider in
                Button("Self-test on \(provider.rawValue)") {
                    say { try selfTest(provider) }
                }
            }
            PhotosPicker("Choose a picture", selection: $picture, matching: .images)
            ScrollView {
                Text(log).font(.system(.footnote, design: .monospaced)).frame(maxWidth: .infinity, alignment: .leading)
            }
        }
        .padding()
        .onChange(of: picture) { item in
            guard let item = item else { return }
            Task {
                guard
                    let data = try? await item.loadTransferable(type: Data.self),
                    let image = UIImage(data: data)?.cgImage
                else {
                    log = "This picture cannot be read.\n\n" + log
                    return
                }
                say { try classify(image) }
            }
        }
    }

    private func say(_ work: @escaping () throws -> String) {
        Task.detached {
            let text: String
            do { text = try work() } catch { text = "Failed: \(error.localizedDescription)" }
            await MainActor.run { log = text + "\n\n" + log }
        }
    }
}

/// A file of the bundle.
func bundleFile(_ name: String) throws -> URL {
    guard let folder = Bundle.main.url(forResource: "bundle", withExtension: nil) else {
        throw SampleError("The app has no folder 'bundle'.")
    }
    return folder.appendingPathComponent(name)
}

func readManifest() throws -> Manifest {
    try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: bundleFile("manifest.json")))
}

func selfTest(_ provider: Provider) throws -> String {
    let manifest = try readManifest()
    let test = try JSONDecoder().decode(SelfTest.self, from: Data(contentsOf: bundleFile("selftest.json")))
    let engine = try Engine(manifest: manifest, path: bundleFile(manifest.engine.entry).path, provider: provider)
    let differences = try runSelfTest(test, manifest: manifest, engine: engine) { try Data(contentsOf: bundleFile($0)) }
    var zeros: [String: Tensor] = [:]
    for input in manifest.contract.inputs {
        let shape = try manifest.shape(of: input, count: manifest.batch)
        let size = try shape.reduce(1, *) * bytes(of: input.dtype)
        zeros[input.name] = Tensor(dtype: input.dtype, shape: shape, bytes: Data(count: size))
    }
    let median = try medianMs(50) { _ = try engine.infer(zeros) }
    let lines = differences.map(\.description).joined(separator: "\n")
    return "\(provider.rawValue), \(test.samples) samples, tolerance \(test.tolerance)\n\(lines)\n"
        + String(format: "median %.2f ms at batch %d", median, manifest.batch)
}

func classify(_ image: CGImage) throws -> String {
    let manifest = try readManifest()
    guard let input = manifest.contract.inputs.first, let output = manifest.contract.outputs.first else {
        throw SampleError("The model has no input or no output.")
    }
    let size = try imageSize(input, shape: manifest.shape(of: input, count: 1))
    let rgba = try pixels(of: image, width: size.width, height: size.height)
    let one = try imageTensor(rgba, input: input, shape: manifest.shape(of: input, count: 1))
    // A fixed batch is filled with the same picture.
    var filled = Data()
    for _ in 0..<manifest.batch { filled.append(one.bytes) }
    let shape = try manifest.shape(of: input, count: manifest.batch)
    let engine = try Engine(manifest: manifest, path: bundleFile(manifest.engine.entry).path, provider: .cpu)
    let outputs = try engine.infer([input.name: Tensor(dtype: one.dtype, shape: shape, bytes: filled)])
    guard let tensor = outputs[output.name] else { throw SampleError("The engine has no output '\(output.name)'.") }
    let all = try numbers(tensor.dtype, tensor.bytes)
    let scores = Array(all.prefix(all.count / manifest.batch))
    let order = scores.indices.sorted { scores[$0] > scores[$1] }.prefix(5)
    let classes = manifest.contract.classes
    let lines = order.map { index -> String in
        let name = index < classes.count ? classes[index] : "class \(index)"
        return "\(name): " + String(format: "%.3f", scores[index])
    }
    return (lines + ["The bundle's preprocessing: \(input.preprocessing ?? "not stated")"]).joined(separator: "\n")
}

/// Milliseconds per inference: the median of `repeats`, after a tenth as many that do not count.
func medianMs(_ repeats: Int, _ work: () throws -> Void) rethrows -> Double {
    for _ in 0...repeats / 10 { try work() }
    var times: [Double] = []
    for _ in 0..<repeats {
        let start = DispatchTime.now().uptimeNanoseconds
        try work()
        times.append(Double(DispatchTime.now().uptimeNanoseconds - start) / 1e6)
    }
    return times.sorted()[repeats / 2]
}
