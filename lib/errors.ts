/** Codes of every error that this package throws. */
export type SsrlErrorCode =
  | 'ERR_INVALID_CONFIG'
  | 'ERR_INVALID_ARG'
  | 'ERR_MODEL_FORMAT'
  | 'ERR_DATASET'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_NON_FINITE'
  | 'ERR_CHECKPOINT'
  | 'ERR_SEARCH'
  | 'ERR_NO_DEVICE'
  | 'ERR_TOKENIZER'
  | 'ERR_REWARD'
  | 'ERR_TIMEOUT'
  | 'ERR_DISPOSED'
  | 'ERR_NATIVE_LOAD'
  | 'ERR_NETWORK'
  | 'ERR_IO'
  | 'ERR_INTERNAL'

/** The one error class: `code` is for programs; the message says what was expected, what came and what to do. */
export class SsrlError extends Error {
  readonly code: SsrlErrorCode

  constructor(code: SsrlErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'SsrlError'
    this.code = code
  }
}
