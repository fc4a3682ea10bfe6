/** bfloat16 as JavaScript can hold it: the upper 16 bits of a float32, in a Uint16Array. */

/** Rounds to bf16, to nearest even; a NaN stays a NaN. */
export function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const out = new Uint16Array(values.length)
  for (let i = 0; i < out.length; i++) {
    const b = bits[i]!
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16
  }
  return out
}

/** The exact float32 values of bf16 patterns. */
export function fromBfloat16(patterns: Uint16Array): Float32Array {
  const bits = new Uint32Array(patterns.length)
  for (let i = 0; i < bits.length; i++) bits[i] = patterns[i]! << 16
  return new Float32Array(bits.buffer)
}
