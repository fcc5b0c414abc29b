package android.widget

import android.content.Context
import android.view.View

open class TextView(context: Context) : View() {
    var text: CharSequence = ""
}

class Button(context: Context) : TextView(context)

class ScrollView(context: Context) : View() {
    fun addView(view: View) {}
}

class LinearLayout(context: Context) : View() {
    var orientation: Int = 0
    fun addView(view: View) {}

    companion object {
        const val VERTICAL = 1
    }
}
