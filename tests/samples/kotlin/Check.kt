// Runs the sample's own reading, preprocessing and self-test on a JVM: `Check BUNDLE PIXELS WEIGHTS OUT`.

package check

import dev.edgeopt.sample.Contract
import dev.edgeopt.sample.SelfTest
import dev.edgeopt.sample.Tensor
import dev.edgeopt.sample.allocate
import dev.edgeopt.sample.best
import dev.edgeopt.sample.imageTensor
import dev.edgeopt.sample.numbers
import dev.edgeopt.sample.runSelfTest
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main(args: Array<String>) {
    val bundle = File(args[0])
    val contract = Contract.parse(File(bundle, "manifest.json").readText())
    val input = contract.inputs.first()
    val pixels = ByteBuffer.wrap(File(args[1]).readBytes()).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
    val argb = IntArray(pixels.remaining())
    pixels.get(argb)
    val tensor = imageTensor(argb, input)
    val bytes = ByteArray(tensor.bytes.capacity())
    tensor.bytes.rewind()
    tensor.bytes.get(bytes)
    File(args[3]).writeBytes(bytes)
    println("engine ${contract.engineFile} batch ${contract.batch} threads ${contract.threads}")
    println("config ${contract.sessionConfig.toSortedMap()} outputs ${contract.outputs} classes ${contract.classes}")
    println("shape ${tensor.shape.toList()}")

    val raw = allocate(File(args[2]).length().toInt())
    raw.put(File(args[2]).readBytes())
    val weights = numbers("float32", raw)
    val test = SelfTest.parse(File(bundle, "selftest.json").readText())
    val classes = test.outputs.first().row
    for (spoilt in listOf(0.0, 1.0, Double.NaN)) {
        val differences = runSelfTest(test, contract, { File(bundle, it).readBytes() }) { fed ->
            val x = numbers("float32", fed.getValue(input.name).bytes)
            val rows = fed.getValue(input.name).shape[0].toInt()
            val width = x.size / rows
            val made = allocate(rows * classes * 4)
            for (row in 0 until rows) for (c in 0 until classes) {
                var sum = weights[width * classes + c] + spoilt
                for (i in 0 until width) sum += x[row * width + i] * weights[i * classes + c]
                made.putFloat((row * classes + c) * 4, sum.toFloat())
            }
            mapOf(test.outputs.first().name to Tensor("float32", longArrayOf(rows.toLong(), classes.toLong()), made))
        }
        println("spoilt $spoilt: ${differences.joinToString { if (it.passed) "PASS" else "FAIL" }}")
    }
    println(best(doubleArrayOf(0.25, 3.0, -1.0), contract.classes, 2))
}
