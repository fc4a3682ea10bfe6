/** A tensor entry as it stands in the file, but for the shape, which is row-major. */
export interface TensorEntry {
  name: string
  shape: readonly (number | bigint)[]
  type: number
  offset: number | bigint
}

/** Puts GGUF files together byte by byte, also ones that are wrong. */
export class Gguf {
  readonly #options: { version?: number; tensorCount?: bigint; entryCount?: bigint }
  readonly #parts: Buffer[] = []
  #tensors = 0n
  #entries = 0n

  /** Counts that are given stand in the header instead of the true ones. */
  constructor(options: { version?: number; tensorCount?: bigint; entryCount?: bigint } = {}) {
    this.#options = options
  }

  raw(bytes: Buffer): this {
    this.#parts.push(bytes)
    return this
  }

  u32(value: number): this {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return this.raw(bytes)
  }

  u64(value: bigint): this {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    return this.raw(bytes)
  }

  string(text: string): this {
    const bytes = Buffer.from(text)
    return this.u64(BigInt(bytes.length)).raw(bytes)
  }

  entry(key: string, type: number, value: (gguf: this) => unknown): this {
    this.#entries++
    this.string(key).u32(type)
    value(this)
    return this
  }

  u32Entry(key: string, value: number): this {
    return this.entry(key, 4, () => this.u32(value))
  }

  stringEntry(key: string, value: string): this {
    return this.entry(key, 8, () => this.string(value))
  }

  tensor({ name, shape, type, offset }: TensorEntry): this {
    this.#tensors++
    this.string(name).u32(shape.length)
    for (const size of [...shape].reverse()) this.u64(BigInt(size))
    return this.u32(type).u64(BigInt(offset))
  }

  /** Zeros up to the alignment, and then the tensors' bytes. */
  data(alignment = 32, bytes = Buffer.alloc(512)): this {
    const length = 24 + this.#parts.reduce((sum, part) => sum + part.length, 0)
    return this.raw(Buffer.alloc((alignment - (length % alignment)) % alignment)).raw(bytes)
  }

  bytes(): Buffer {
    const header = Buffer.alloc(24)
    header.write('GGUF')
    header.writeUInt32LE(this.#options.version ?? 3, 4)
    header.writeBigUInt64LE(this.#options.tensorCount ?? this.#tensors, 8)
    header.writeBigUInt64LE(this.#options.entryCount ?? this.#entries, 16)
    return Buffer.concat([header, ...this.#parts])
  }
}
