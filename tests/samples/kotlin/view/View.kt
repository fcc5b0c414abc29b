package android.view

open class View {
    fun setOnClickListener(listener: (View) -> Unit) {}
}
