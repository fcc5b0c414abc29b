// The shapes of ONNX Runtime's Java interface that the sample uses; written from its API reference. Nothing runs.

package ai.onnxruntime

import ai.onnxruntime.providers.NNAPIFlags
import java.nio.ByteBuffer
import java.util.EnumSet

enum class OnnxJavaType { FLOAT, DOUBLE, INT8, INT16, INT32, INT64, BOOL, STRING, UINT8, FLOAT16, BFLOAT16, UNKNOWN }

class TensorInfo(val type: OnnxJavaType, val shape: LongArray)

interface OnnxValue : AutoCloseable

interface OnnxTensorLike : OnnxValue

class OnnxTensor : OnnxTensorLike {
    val info: TensorInfo get() = throw NotImplementedError()
    val byteBuffer: ByteBuffer get() = throw NotImplementedError()
    override fun close() {}

    companion object {
        fun createTensor(env: OrtEnvironment, data: ByteBuffer, shape: LongArray, type: OnnxJavaType): OnnxTensor =
            throw NotImplementedError()
    }
}

class OrtEnvironment private constructor() {
    fun createSession(model: ByteArray, options: OrtSession.SessionOptions): OrtSession = throw NotImplementedError()

    companion object {
        fun getEnvironment(): OrtEnvironment = throw NotImplementedError()
    }
}

class OrtSession : AutoCloseable {
    fun run(inputs: Map<String, OnnxTensorLike>): Result = throw NotImplementedError()
    override fun close() {}

    abstract class Result : AutoCloseable, Iterable<Map.Entry<String, OnnxValue>>

    class SessionOptions : AutoCloseable {
        fun addConfigEntry(key: String, value: String) {}
        fun setIntraOpNumThreads(threads: Int) {}
        fun addXnnpack(options: Map<String, String>) {}
        fun addNnapi(flags: EnumSet<NNAPIFlags>) {}
        override fun close() {}
    }
}
