/** The public surface: what is not exported here is not public. */
export { SsrlError, type SsrlErrorCode } from './errors.ts'
