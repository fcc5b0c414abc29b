package dev.edgeopt.sample

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.os.Bundle
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import kotlin.concurrent.thread

/** Runs the bundle's self-test and times it, per provider; classifies a picture where the model takes one. */
class MainActivity : Activity() {
    private lateinit var log: TextView
    private val contract: Contract by lazy { Contract.parse(String(asset("manifest.json"), Charsets.UTF_8)) }

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        log = TextView(this)
        val column = LinearLayout(this)
        column.orientation = LinearLayout.VERTICAL
        for (provider in Provider.values()) {
            column.addView(button("Self-test on $provider") { inBackground { selfTest(provider) } })
        }
        column.addView(button("Choose a picture") { choosePicture() })
        val scroll = ScrollView(this)
        scroll.addView(log)
        column.addView(scroll)
        setContentView(column)
    }

    @Deprecated("The framework's own; androidx's result contracts would be a dependency more.")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val uri = data?.data
        if (request != PICTURE || result != RESULT_OK || uri == null) return
        inBackground {
            val bitmap = contentResolver.openInputStream(uri)?.use { BitmapFactory.decodeStream(it) }
            if (bitmap == null) "This picture cannot be read." else classify(bitmap)
        }
    }

    private fun selfTest(provider: Provider): String {
        val test = SelfTest.parse(String(asset("selftest.json"), Charsets.UTF_8))
        Engine(contract, asset(contract.engineFile), provider).use { engine ->
            val differences = runSelfTest(test, contract, ::asset, engine::infer)
            val zeros = contract.inputs.associate { input ->
                val shape = input.shapeFor(contract.batch)
                val count = shape.fold(1L) { product, dim -> product * dim }.toInt()
                input.name to Tensor(input.dtype, shape, allocate(count * bytesOf(input.dtype)))
            }
            val median = medianMs(50) { engine.infer(zeros) }
            return "$provider, ${test.samples} samples, tolerance ${test.tolerance}\n" +
                differences.joinToString("\n") + "\nmedian ${"%.2f".format(median)} ms at batch ${contract.batch}"
        }
    }

    private fun classify(bitmap: Bitmap): String {
        val input = contract.inputs.first()
        val size = imageSize(input)
        val scaled = Bitmap.createScaledBitmap(bitmap, size.width, size.height, true)
        val pixels = IntArray(size.width * size.height)
        scaled.getPixels(pixels, 0, size.width, 0, 0, size.width, size.height)
        val one = imageTensor(pixels, input)
        // A fixed batch is filled with the same picture.
        val bytes = allocate(one.bytes.capacity() * contract.batch)
        for (row in 0 until contract.batch) {
            one.bytes.rewind()
            bytes.put(one.bytes)
        }
        val filled = Tensor(one.dtype, input.shapeFor(contract.batch), bytes)
        Engine(contract, asset(contract.engineFile), Provider.CPU).use { engine ->
            val output = engine.infer(mapOf(input.name to filled)).getValue(contract.outputs.first())
            val scores = numbers(output.dtype, output.bytes)
            val row = scores.copyOf(scores.size / contract.batch)
            return best(row, contract.classes, 5).joinToString("\n") +
                "\nThe bundle's preprocessing: ${input.preprocessing ?: "not stated"}"
        }
    }

    private fun asset(name: String): ByteArray = assets.open("bundle/$name").use { it.readBytes() }

    private fun button(text: String, onClick: () -> Unit): Button {
        val made = Button(this)
        made.text = text
        made.setOnClickListener { onClick() }
        return made
    }

    private fun inBackground(work: () -> String) {
        thread {
            val text = try {
                work()
            } catch (error: Exception) {
                "Failed: ${error.message}"
            }
            runOnUiThread { log.text = "$text\n\n${log.text}" }
        }
    }

    private fun choosePicture() {
        val intent = Intent(Intent.ACTION_GET_CONTENT)
        intent.type = "image/*"
        startActivityForResult(intent, PICTURE)
    }

    private companion object {
        const val PICTURE = 1
    }
}
