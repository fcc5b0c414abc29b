package ai.onnxruntime.providers

enum class NNAPIFlags { USE_FP16, USE_NCHW, CPU_DISABLED, CPU_ONLY }
