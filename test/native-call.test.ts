import test from 'ava'
import { SsrlError } from '../lib/errors.ts'
import { loadNative } from '../lib/native.ts'
import { callNative, runNative, toSsrlError } from '../lib/native-call.ts'

const failing = () => loadNative().readTensorFile('/no/such/file')

test('what native code throws or rejects with becomes an SsrlError of its code', async (t) => {
  const error = await t.throwsAsync(runNative(failing), { instanceOf: SsrlError, code: 'ERR_IO' })
  t.regex(error!.message, /\/no\/such\/file/)
  t.throws(() => callNative(() => loadNative().readTensorFile(7 as never)), {
    instanceOf: SsrlError,
    code: 'ERR_INVALID_ARG',
  })
})

test('the error has the frames of the call, not of the event loop', async (t) => {
  const theCaller = () => runNative(failing)
  const error = await t.throwsAsync(theCaller())
  t.regex(error!.stack!, /^SsrlError: /)
  t.regex(error!.stack!, /at failing/)
})

test('errors that are not ours come back as they are', (t) => {
  const foreign = Object.assign(new Error('x'), { code: 'ENOENT' })
  t.is(toSsrlError(foreign), foreign)
  t.is(toSsrlError('text'), 'text')
})

test("after an abort the signal's reason comes, whatever it is", async (t) => {
  const controller = new AbortController()
  const reason = { why: 'a reason of my own' }
  const aborted = Object.assign(new Error('The operation was aborted'), { code: 'ABORTED' })
  const running = runNative(async (token) => {
    controller.abort(reason)
    t.truthy(token)
    throw aborted
  }, controller.signal)
  t.is(await running.catch((error: unknown) => error), reason)
  t.is(await runNative(async () => 1, controller.signal).catch((error: unknown) => error), reason)
})
