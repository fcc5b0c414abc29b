"""Click only: parse, call one public function, render, return a code."""
