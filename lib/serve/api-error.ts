import { SsrlError, type SsrlErrorCode } from '../errors.ts'

interface ApiErrorOptions {
  status: 400 | 401 | 404 | 413 | 415 | 429 | 500 | 503
  code?: string
  /** The field that is wrong. */
  param?: string
  headers?: Record<string, string>
  cause?: unknown
}

/** What a client of the OpenAI protocol is told when something is wrong: a status, and `{ error }` as its body. */
export class ApiError extends Error {
  readonly options: ApiErrorOptions

  constructor(message: string, options: ApiErrorOptions) {
    super(message, { cause: options.cause })
    this.name = 'ApiError'
    this.options = options
  }

  get body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { status, param = null, code = null } = this.options
    const type = status === 429 ? 'rate_limit_error' : status < 500 ? 'invalid_request_error' : 'server_error'
    return { error: { message: this.message, type, param, code } }
  }

  response(): Response {
    const { status, headers } = this.options
    return Response.json(this.body, { status, headers })
  }
}

const statusOf: Partial<Record<SsrlErrorCode, ApiErrorOptions['status']>> = {
  ERR_INVALID_ARG: 400,
  ERR_TOKENIZER: 400,
  ERR_OUT_OF_MEMORY: 503,
  ERR_DISPOSED: 503,
}

/** Errors of the library keep their message; of others nothing is told but that there was one. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  if (error instanceof SsrlError) {
    const status = statusOf[error.code] ?? 500
    return new ApiError(error.message, { status, code: error.code, cause: error })
  }
  return new ApiError('The server failed at this request', { status: 500, cause: error })
}
