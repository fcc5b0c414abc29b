package dev.edgeopt.sample

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject

/** One reference tensor of the bundle: [samples, ...], stored as raw little-endian numbers. */
class Reference(val name: String, val dtype: String, val shape: List<Int>, val file: String) {
    /** Elements of one sample. */
    val row: Int = shape.drop(1).fold(1) { product, dim -> product * dim }
}

/** What `selftest.json` holds: real samples, what the engine gave for them, and how far it may be from that here. */
class SelfTest(
    val samples: Int,
    val share: Double,
    val tolerance: String,
    val inputs: List<Reference>,
    val outputs: List<Reference>
) {
    companion object {
        fun parse(text: String): SelfTest {
            val document = JSONObject(text)
            return SelfTest(
                samples = document.getInt("samples"),
                share = document.getDouble("share"),
                tolerance = document.getString("tolerance"),
                inputs = references(document, "inputs"),
                outputs = references(document, "outputs")
            )
        }

        private fun references(document: JSONObject, key: String): List<Reference> {
            val array = document.getJSONArray(key)
            return (0 until array.length()).map { index ->
                val record = array.getJSONObject(index)
                val shape = record.getJSONArray("shape")
                Reference(
                    record.getString("name"),
                    record.getString("dtype"),
                    (0 until shape.length()).map { shape.getInt(it) },
                    record.getString("file")
                )
            }
        }
    }
}

/** One output against its reference. NaN is never inside what is allowed. */
class Difference(val output: String, val largest: Double, val allowed: Double) {
    val passed: Boolean = largest <= allowed
    override fun toString(): String =
        "${if (passed) "PASS" else "FAIL"} $output: largest difference $largest, allowed $allowed"
}

/** The numbers of a tensor, as doubles. */
fun numbers(dtype: String, bytes: ByteBuffer): DoubleArray {
    val view = bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    view.rewind()
    val size = bytesOf(dtype)
    return DoubleArray(view.remaining() / size) { index ->
        when (dtype) {
            "float32" -> view.getFloat(index * size).toDouble()
            "float64" -> view.getDouble(index * size)
            "int32" -> view.getInt(index * size).toDouble()
            "int64" -> view.getLong(index * size).toDouble()
            "uint8" -> (view.get(index).toInt() and 0xFF).toDouble()
            else -> view.get(index).toDouble()
        }
    }
}

/** Compares an output with its reference: the largest difference, against a share of the reference's range. */
fun compare(name: String, actual: DoubleArray, expected: DoubleArray, share: Double): Difference {
    if (actual.size != expected.size || expected.isEmpty()) return Difference(name, Double.NaN, 0.0)
    var largest = 0.0
    var low = expected[0]
    var high = expected[0]
    for (index in expected.indices) {
        val apart = Math.abs(actual[index] - expected[index])
        if (apart.isNaN()) return Difference(name, Double.NaN, 0.0)
        if (apart > largest) largest = apart
        if (expected[index] < low) low = expected[index]
        if (expected[index] > high) high = expected[index]
    }
    return Difference(name, largest, share * (high - low))
}
