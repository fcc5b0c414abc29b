import Foundation

/// What the app needs of `manifest.json`: how to feed the engine, and how to open it.
struct Manifest: Decodable {
    struct Spec: Decodable {
        let name: String
        let shape: [Dim]
    }

    struct Options: Decodable {
        let config: [String: String]?
        let threads: Int?
    }

    struct EngineRecord: Decodable {
        let entry: String
        let batch: Int?
        let options: Options
        let inputs: [Spec]
    }

    struct Contract: Decodable {
        let inputs: [InputContract]
        let outputs: [OutputContract]
        let classes: [String]
    }

    let engine: EngineRecord
    let contract: Contract

    /// Samples per inference: what a static batch was fixed to, else one.
    var batch: Int { engine.batch ?? 1 }

    /// The engine's shape of an input at a batch of `count`.
    func shape(of input: InputContract, count: Int) throws -> [Int] {
        let spec = engine.inputs.first { $0.name == input.name }
        let dims = spec?.shape ?? input.shape
        return try dims.enumerated().map { index, dim in
            if index == 0 { return count }
            guard case .fixed(let size) = dim else {
                throw SampleError("Dimension \(index) of input '\(input.name)' varies; give it a size in the model.")
            }
            return size
        }
    }
}

/// A dimension: a size, or a name where it may vary.
enum Dim: Decodable {
    case fixed(Int)
    case named(String)

    init(from decoder: Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let size = try? container.decode(Int.self) {
            self = .fixed(size)
        } else {
            self = .named(try container.decode(String.self))
        }
    }
}

/// One input as the bundle describes it.
struct InputContract: Decodable {
    let name: String
    let dtype: String
    let shape: [Dim]
    let layout: String?
    let scale: String?
    let mean: [Double]?
    let std: [Double]?
    let preprocessing: String?

    /// "1/255" or "0.5"; 1 where nothing is scaled.
    var ratio: Double {
        let parts = (scale ?? "1").split(separator: "/").compactMap { Double($0) }
        return (parts.first ?? 1) / (parts.count > 1 ? parts[1] : 1)
    }
}

/// One output's name.
struct OutputContract: Decodable {
    let name: String
}

/// What went wrong, in one sentence.
struct SampleError: LocalizedError {
    let message: String

    init(_ message: String) {
        self.message = message
    }

    var errorDescription: String? { message }
}
