package dev.edgeopt.sample

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.providers.NNAPIFlags
import java.util.EnumSet

/** Where the nodes run. What a provider does not take runs on the CPU. */
enum class Provider { CPU, XNNPACK, NNAPI }

/** The bundle's engine in memory. */
class Engine(private val contract: Contract, model: ByteArray, provider: Provider) : AutoCloseable {
    private val environment: OrtEnvironment = OrtEnvironment.getEnvironment()
    private val session: OrtSession = environment.createSession(model, options(contract, provider))

    /** Runs once. One tensor per input name; gives one per output name. */
    fun infer(inputs: Map<String, Tensor>): Map<String, Tensor> {
        val fed = HashMap<String, OnnxTensor>()
        try {
            for ((name, tensor) in inputs) {
                tensor.bytes.rewind()
                fed[name] = OnnxTensor.createTensor(environment, tensor.bytes, tensor.shape, javaType(tensor.dtype))
            }
            session.run(fed).use { result ->
                val made = HashMap<String, Tensor>()
                for (entry in result) {
                    val value = entry.value as OnnxTensor
                    made[entry.key] = Tensor(dtype(value.info.type), value.info.shape, value.byteBuffer)
                }
                return made
            }
        } finally {
            for (tensor in fed.values) tensor.close()
        }
    }

    override fun close() = session.close()

    private companion object {
        /** The session options that the engine was compiled to be run with, from the manifest. */
        fun options(contract: Contract, provider: Provider): OrtSession.SessionOptions {
            val options = OrtSession.SessionOptions()
            for ((key, value) in contract.sessionConfig) options.addConfigEntry(key, value)
            when (provider) {
                Provider.CPU -> options.setIntraOpNumThreads(contract.threads)
                Provider.XNNPACK -> {
                    // XNNPACK has a thread pool of its own; two pools would compete for the cores.
                    options.addXnnpack(mapOf("intra_op_num_threads" to contract.threads.toString()))
                    options.setIntraOpNumThreads(1)
                }
                Provider.NNAPI -> {
                    // Without CPU_DISABLED, NNAPI may run a part on its own slow reference CPU path.
                    options.addNnapi(EnumSet.of(NNAPIFlags.CPU_DISABLED))
                    options.setIntraOpNumThreads(contract.threads)
                }
            }
            return options
        }

        fun javaType(dtype: String): OnnxJavaType = when (dtype) {
            "float32" -> OnnxJavaType.FLOAT
            "float64" -> OnnxJavaType.DOUBLE
            "int64" -> OnnxJavaType.INT64
            "int32" -> OnnxJavaType.INT32
            "int8" -> OnnxJavaType.INT8
            "uint8" -> OnnxJavaType.UINT8
            "bool" -> OnnxJavaType.BOOL
            else -> throw IllegalArgumentException("This sample does not handle tensors of type $dtype.")
        }

        fun dtype(type: OnnxJavaType): String = when (type) {
            OnnxJavaType.FLOAT -> "float32"
            OnnxJavaType.DOUBLE -> "float64"
            OnnxJavaType.INT64 -> "int64"
            OnnxJavaType.INT32 -> "int32"
            OnnxJavaType.INT8 -> "int8"
            OnnxJavaType.UINT8 -> "uint8"
            OnnxJavaType.BOOL -> "bool"
            else -> throw IllegalArgumentException("This sample does not handle tensors of type $type.")
        }
    }
}
