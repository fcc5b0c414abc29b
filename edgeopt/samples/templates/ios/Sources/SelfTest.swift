import Foundation

/// One reference tensor of the bundle: [samples, ...], stored as raw little-endian numbers.
struct Reference: Decodable {
    let name: String
    let dtype: String
    let shape: [Int]
    let file: String

    /// Elements of one sample.
    var row: Int { shape.dropFirst().reduce(1, *) }
}

/// What `selftest.json` holds: real samples, what the engine gave for them, and how far it may be from that here.
struct SelfTest: Decodable {
    let samples: Int
    let share: Double
    let tolerance: String
    let inputs: [Reference]
    let outputs: [Reference]
}

/// One output against its reference. NaN is never inside what is allowed.
struct Difference: CustomStringConvertible {
    let output: String
    let largest: Double
    let allowed: Double

    var passed: Bool { largest <= allowed }
    var description: String {
        "\(passed ? "PASS" : "FAIL") \(output): largest difference \(largest), allowed \(allowed)"
    }
}

/// Bytes per element of the dtypes that this sample handles.
func bytes(of dtype: String) throws -> Int {
    switch dtype {
    case "float32", "int32": return 4
    case "int64", "float64": return 8
    case "uint8", "int8", "bool": return 1
    default: throw SampleError("This sample does not handle tensors of type \(dtype).")
    }
}

/// The numbers of a tensor, as doubles.
func numbers(_ dtype: String, _ data: Data) throws -> [Double] {
    let size = try bytes(of: dtype)
    return data.withUnsafeBytes { buffer in
        (0..<buffer.count / size).map { index in
            let offset = index * size
            switch dtype {
            case "float32": return Double(buffer.loadUnaligned(fromByteOffset: offset, as: Float.self))
            case "float64": return buffer.loadUnaligned(fromByteOffset: offset, as: Double.self)
            case "int32": return Double(buffer.loadUnaligned(fromByteOffset: offset, as: Int32.self))
            case "int64": return Double(buffer.loadUnaligned(fromByteOffset: offset, as: Int64.self))
            case "uint8": return Double(buffer[offset])
            default: return Double(Int8(bitPattern: buffer[offset]))
            }
        }
    }
}

/// Compares an output with its reference: the largest difference, against a share of the reference's range.
func compare(_ name: String, actual: [Double], expected: [Double], share: Double) -> Difference {
    guard actual.count == expected.count, let low = expected.min(), let high = expected.max() else {
        return Difference(output: name, largest: .nan, allowed: 0)
    }
    var largest = 0.0
    for (got, want) in zip(actual, expected) {
        let apart = abs(got - want)
        if apart.isNaN { return Difference(output: name, largest: .nan, allowed: 0) }
        largest = max(largest, apart)
    }
    return Difference(output: name, largest: largest, allowed: share * (high - low))
}

/// The bundle's reference samples, run on this phone and compared with what the engine gave where it was compiled.
func runSelfTest(_ test: SelfTest, manifest: Manifest, engine: Engine, file: (String) throws -> Data) throws -> [Difference] {
    let batch = manifest.batch
    var made: [String: [Double]] = [:]
    for start in stride(from: 0, to: test.samples, by: batch) {
        let rows = (start..<start + batch).map { min($0, test.samples - 1) }
        var inputs: [String: Tensor] = [:]
        for input in manifest.contract.inputs {
            guard let reference = test.inputs.first(where: { $0.name == input.name }) else {
                throw SampleError("The self-test has no input '\(input.name)'.")
            }
            let size = try reference.row * bytes(of: reference.dtype)
            let raw = try file(reference.file)
            var gathered = Data(capacity: size * rows.count)
            for row in rows { gathered.append(raw.subdata(in: row * size..<(row + 1) * size)) }
            let shape = try manifest.shape(of: input, count: rows.count)
            inputs[input.name] = Tensor(dtype: reference.dtype, shape: shape, bytes: gathered)
        }
        let outputs = try engine.infer(inputs)
        let fresh = min(batch, test.samples - start)
        for reference in test.outputs {
            guard let tensor = outputs[reference.name] else {
                throw SampleError("The engine has no output '\(reference.name)'.")
            }
            made[reference.name, default: []] += try numbers(tensor.dtype, tensor.bytes).prefix(fresh * reference.row)
        }
    }
    return try test.outputs.map { reference in
        let expected = try numbers(reference.dtype, file(reference.file))
        return compare(reference.name, actual: made[reference.name] ?? [], expected: expected, share: test.share)
    }
}
