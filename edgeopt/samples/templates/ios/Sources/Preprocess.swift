import CoreGraphics
import Foundation

/// An input or an output: raw little-endian bytes, its NumPy dtype and its shape.
struct Tensor {
    let dtype: String
    let shape: [Int]
    let bytes: Data
}

/// Rows, columns and channels of an image input.
struct ImageSize {
    let height: Int
    let width: Int
    let channels: Int
}

/// The size of the picture that the input takes, from its layout.
func imageSize(_ input: InputContract, shape: [Int]) throws -> ImageSize {
    switch (input.layout, shape.count) {
    case ("NCHW", 4):
        return ImageSize(height: shape[2], width: shape[3], channels: shape[1])
    case ("NHWC", 4):
        return ImageSize(height: shape[1], width: shape[2], channels: shape[3])
    default:
        throw SampleError("Input '\(input.name)' is no picture: its layout is \(input.layout ?? "unknown").")
    }
}

/// Draws a picture at a size and gives its pixels, R G B A, row by row.
func pixels(of image: CGImage, width: Int, height: Int) throws -> [UInt8] {
    var made = [UInt8](repeating: 0, count: width * height * 4)
    let drawn = made.withUnsafeMutableBytes { buffer -> Bool in
        guard
            let context = CGContext(
                data: buffer.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: width * 4,
                space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.premultipliedLast.rawValue)
        else { return false }
        context.interpolationQuality = .high
        context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return true
    }
    if !drawn { throw SampleError("The picture cannot be drawn.") }
    return made
}

/// Turns pixels (R G B A, row by row, at the input's size) into one sample: (x * scale - mean) / std per channel, in the
/// input's layout.
func imageTensor(_ rgba: [UInt8], input: InputContract, shape: [Int]) throws -> Tensor {
    let size = try imageSize(input, shape: shape)
    let area = size.height * size.width
    guard rgba.count == area * 4 else {
        throw SampleError("Input '\(input.name)' takes \(area) pixels; received \(rgba.count / 4).")
    }
    guard size.channels == 3 || size.channels == 1 else {
        throw SampleError("A picture has 1 or 3 channels, not \(size.channels).")
    }
    var floats = [Float](repeating: 0, count: area * size.channels)
    var raws = [UInt8](repeating: 0, count: area * size.channels)
    for pixel in 0..<area {
        for channel in 0..<size.channels {
            let place = input.layout == "NCHW" ? channel * area + pixel : pixel * size.channels + channel
            let raw = size.channels == 1 ? grey(rgba, pixel) : rgba[pixel * 4 + channel]
            raws[place] = raw
            floats[place] = Float((Double(raw) * input.ratio - perChannel(input.mean, channel, 0)) / perChannel(input.std, channel, 1))
        }
    }
    switch input.dtype {
    case "float32":
        return Tensor(dtype: input.dtype, shape: shape, bytes: floats.withUnsafeBytes { Data($0) })
    case "uint8":
        return Tensor(dtype: input.dtype, shape: shape, bytes: Data(raws))
    default:
        throw SampleError("This sample does not turn pixels into \(input.dtype).")
    }
}

private func perChannel(_ values: [Double]?, _ channel: Int, _ otherwise: Double) -> Double {
    guard let values = values else { return otherwise }
    return values.count == 1 ? values[0] : values[channel]
}

/// ITU-R 601-2 luma with the integer weights that Pillow uses for its mode "L".
private func grey(_ rgba: [UInt8], _ pixel: Int) -> UInt8 {
    let red = Int(rgba[pixel * 4])
    let green = Int(rgba[pixel * 4 + 1])
    let blue = Int(rgba[pixel * 4 + 2])
    return UInt8((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)
}
