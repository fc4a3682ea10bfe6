import { readFileSync } from 'node:fs'

export interface StoredTensor {
  shape: number[]
  data: Float32Array | Int32Array | Uint8Array
}

/** Reads a small safetensors file that is known to be sound; 64-bit integers become 32-bit ones. */
export function readSafetensors(path: string): Map<string, StoredTensor> {
  const bytes = readFileSync(path)
  const headerLength = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const tensors = new Map<string, StoredTensor>()
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue
    const [start, end] = data_offsets
    const buffer = new Uint8Array(bytes.subarray(8 + headerLength + start, 8 + headerLength + end)).buffer
    tensors.set(name, { shape, data: view(dtype, buffer) })
  }
  return tensors
}

function view(dtype: string, buffer: ArrayBuffer) {
  if (dtype === 'F32') return new Float32Array(buffer)
  if (dtype === 'I32') return new Int32Array(buffer)
  if (dtype === 'I64') return Int32Array.from(new BigInt64Array(buffer), Number)
  if (dtype === 'U8' || dtype === 'BOOL') return new Uint8Array(buffer)
  throw new Error(`No view for ${dtype}`)
}
