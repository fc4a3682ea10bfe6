import { closeSync, openSync, readSync } from 'node:fs'
import type { GgufMetadata, GgufValue, TensorShape } from '../../lib/policy/gguf-config.ts'

/** Reads the header of a little-endian GGUF file that is known to be sound. */
export function readGgufHeader(path: string): { metadata: GgufMetadata; tensors: TensorShape[] } {
  const cursor = new Cursor(path)
  cursor.skip(8)
  const tensorCount = Number(cursor.u64())
  const keyCount = Number(cursor.u64())
  const metadata: Record<string, GgufValue> = {}
  for (let i = 0; i < keyCount; i++) {
    const key = cursor.string()
    metadata[key] = cursor.value(cursor.u32())
  }
  const tensors = Array.from({ length: tensorCount }, () => {
    const name = cursor.string()
    const shape = Array.from({ length: cursor.u32() }, () => Number(cursor.u64())).reverse()
    cursor.skip(12)
    return { name, shape }
  })
  cursor.close()
  return { metadata, tensors }
}

const chunk = 1 << 24

class Cursor {
  readonly #file: number
  readonly #bytes = Buffer.alloc(chunk)
  #at = 0

  constructor(path: string) {
    this.#file = openSync(path, 'r')
    readSync(this.#file, this.#bytes, 0, chunk, 0)
  }

  close() {
    closeSync(this.#file)
  }

  skip(count: number) {
    this.#at += count
    return this.#at - count
  }

  u32() {
    return this.#bytes.readUInt32LE(this.skip(4))
  }

  u64() {
    return this.#bytes.readBigUInt64LE(this.skip(8))
  }

  string() {
    const length = Number(this.u64())
    const start = this.skip(length)
    return this.#bytes.toString('utf8', start, start + length)
  }

  value(type: number): GgufValue {
    if (type === 8) return this.string()
    if (type === 9) {
      const element = this.u32()
      return Array.from({ length: Number(this.u64()) }, () => this.value(element))
    }
    const read = [
      () => this.#bytes.readUInt8(this.skip(1)),
      () => this.#bytes.readInt8(this.skip(1)),
      () => this.#bytes.readUInt16LE(this.skip(2)),
      () => this.#bytes.readInt16LE(this.skip(2)),
      () => this.u32(),
      () => this.#bytes.readInt32LE(this.skip(4)),
      () => this.#bytes.readFloatLE(this.skip(4)),
      () => this.#bytes.readUInt8(this.skip(1)) !== 0,
      undefined,
      undefined,
      () => this.u64(),
      () => this.#bytes.readBigInt64LE(this.skip(8)),
      () => this.#bytes.readDoubleLE(this.skip(8)),
    ][type]
    return read!()
  }
}
