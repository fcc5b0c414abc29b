import Foundation
import OnnxRuntimeBindings

/// Where the nodes run. What a provider does not take runs on the CPU.
enum Provider: String, CaseIterable {
    case cpu = "CPU"
    case xnnpack = "XNNPACK"
    case coreML = "Core ML"
}

/// The bundle's engine in memory.
final class Engine {
    private let environment: ORTEnv
    private let session: ORTSession
    private let outputs: Set<String>

    init(manifest: Manifest, path: String, provider: Provider) throws {
        environment = try ORTEnv(loggingLevel: .warning)
        let options = try Engine.options(manifest, provider)
        session = try ORTSession(env: environment, modelPath: path, sessionOptions: options)
        outputs = Set(manifest.contract.outputs.map(\.name))
    }

    /// Runs once. One tensor per input name; gives one per output name.
    func infer(_ inputs: [String: Tensor]) throws -> [String: Tensor] {
        var fed: [String: ORTValue] = [:]
        for (name, tensor) in inputs {
            fed[name] = try ORTValue(
                tensorData: NSMutableData(data: tensor.bytes), elementType: Engine.elementType(tensor.dtype),
                shape: tensor.shape.map { NSNumber(value: $0) })
        }
        let results = try session.run(withInputs: fed, outputNames: outputs, runOptions: nil)
        return try results.mapValues { value in
            let info = try value.tensorTypeAndShapeInfo()
            // The memory belongs to the value: it is copied before the value goes.
            let data = Data(referencing: try value.tensorData()).withUnsafeBytes { Data($0) }
            return Tensor(dtype: try Engine.dtype(info.elementType), shape: info.shape.map(\.intValue), bytes: data)
        }
    }

    /// The session options that the engine was compiled to be run with, from the manifest.
    private static func options(_ manifest: Manifest, _ provider: Provider) throws -> ORTSessionOptions {
        let options = try ORTSessionOptions()
        for (key, value) in manifest.engine.options.config ?? [:] {
            try options.addConfigEntry(withKey: key, value: value)
        }
        let threads = Int32(manifest.engine.options.threads ?? 2)
        switch provider {
        case .cpu:
            try options.setIntraOpNumThreads(threads)
        case .xnnpack:
            // XNNPACK has a thread pool of its own; two pools would compete for the cores.
            let xnnpack = ORTXnnpackExecutionProviderOptions()
            xnnpack.intra_op_num_threads = threads
            try options.appendXnnpackExecutionProvider(with: xnnpack)
            try options.setIntraOpNumThreads(1)
        case .coreML:
            guard ORTIsCoreMLExecutionProviderAvailable() else {
                throw SampleError("This build of ONNX Runtime has no Core ML provider.")
            }
            try options.appendCoreMLExecutionProvider(with: ORTCoreMLExecutionProviderOptions())
            try options.setIntraOpNumThreads(threads)
        }
        return options
    }

    /// Float, int8, uint8, int32 and int64 are what ONNX Runtime's Objective-C interface has.
    private static func elementType(_ dtype: String) throws -> ORTTensorElementDataType {
        switch dtype {
        case "float32": return .float
        case "int8": return .int8
        case "uint8": return .uInt8
        case "int32": return .int32
        case "int64": return .int64
        default: throw SampleError("This sample does not handle tensors of type \(dtype).")
        }
    }

    private static func dtype(_ type: ORTTensorElementDataType) throws -> String {
        switch type {
        case .float: return "float32"
        case .int8: return "int8"
        case .uInt8: return "uint8"
        case .int32: return "int32"
        case .int64: return "int64"
        default: throw SampleError("This sample does not handle the type of an output.")
        }
    }
}
