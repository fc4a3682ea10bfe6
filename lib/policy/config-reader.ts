import { SsrlError } from '../errors.ts'

/** Reads fields of a parsed JSON object with their types checked; null counts as missing. Errors are ERR_MODEL_FORMAT and name the field. */
export class ConfigReader {
  readonly #fields: Record<string, unknown>
  readonly #where: string
  readonly #prefix: string

  /** @param where the file's name, for messages; @param prefix the path of a nested object, ending in a dot */
  constructor(json: unknown, where: string, prefix = '') {
    this.#where = where
    this.#prefix = prefix
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new SsrlError('ERR_MODEL_FORMAT', `Expected an object in ${where} but received ${describe(json)}`)
    }
    this.#fields = json as Record<string, unknown>
  }

  /** True when the key is there at all, be it null. */
  has(name: string) {
    return Object.hasOwn(this.#fields, name)
  }

  field(name: string): unknown {
    return this.has(name) ? (this.#fields[name] ?? undefined) : undefined
  }

  refuse(name: string, expected: string): never {
    const value = describe(this.has(name) ? this.#fields[name] : undefined)
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      `Expected ${expected} for ${this.#prefix}${name} in ${this.#where} but received ${value}`,
    )
  }

  /** Refuses any value but the neutral ones (and none at all). */
  only(name: string, neutral: readonly unknown[]) {
    const value = this.field(name)
    if (value === undefined || neutral.includes(value)) return
    this.refuse(
      name,
      neutral.length > 0 ? neutral.map((item) => JSON.stringify(item)).join(' or ') : 'nothing',
    )
  }

  /** A positive integer below 2^31. */
  size(name: string, missing?: number): number {
    const value = this.field(name) ?? missing
    if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > 0x7fffffff) {
      return this.refuse(name, 'a positive integer')
    }
    return value as number
  }

  /** A finite number above zero. */
  positive(name: string, missing?: number): number {
    const value = this.field(name) ?? missing
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
      return this.refuse(name, 'a positive number')
    }
    return value
  }

  boolean(name: string, missing: boolean): boolean {
    const value = this.field(name) ?? missing
    if (typeof value !== 'boolean') return this.refuse(name, 'true or false')
    return value
  }

  /** One id or a list of them; [] when missing. */
  tokenIds(name: string): number[] {
    const value = this.field(name) ?? []
    const ids: unknown[] = Array.isArray(value) ? value : [value]
    if (!ids.every((id) => Number.isInteger(id) && (id as number) >= 0 && (id as number) <= 0x7fffffff)) {
      return this.refuse(name, 'a token id or a list of them')
    }
    return [...new Set(ids as number[])]
  }

  /** The nested object of this name; an empty one when missing. */
  section(name: string): ConfigReader {
    return new ConfigReader(this.field(name) ?? {}, this.#where, `${this.#prefix}${name}.`)
  }
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = typeof value === 'bigint' ? `${value}n` : (JSON.stringify(value) ?? typeof value)
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}
