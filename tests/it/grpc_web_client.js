// A gRPC-Web client, the grpc-web package of the gRPC project: calls test.Service at TARGET, in bytes and in base64.

global.XMLHttpRequest = require('xhr2');
const { GrpcWebClientBase, MethodDescriptor, MethodType, StatusCode } = require('grpc-web');
const assert = require('assert');

const target = 'http://' + process.argv[2];
const text = (bytes) => Buffer.from(bytes).toString();
const method = (path, type) =>
  new MethodDescriptor(path, type, Buffer, Buffer, (message) => new Uint8Array(message), (bytes) => Buffer.from(bytes));
const unary = method('/test.Service/Unary', MethodType.UNARY);
const down = method('/test.Service/Down', MethodType.SERVER_STREAMING);

async function refused(client, path, message) {
  const asked = method(path, MethodType.UNARY);
  return client.unaryCall(target + path, Buffer.from(message), {}, asked).then(
    () => assert.fail('the call succeeded'), (error) => error);
}

async function run(format) {
  const client = new GrpcWebClientBase({ format });
  const call = (message, metadata = {}) =>
    client.unaryCall(target + '/test.Service/Unary', Buffer.from(message), metadata, unary);
  assert.strictEqual(text(await call('abc')), 'cba');
  assert.strictEqual((await call('grow 200000')).length, 200000);
  const error = await refused(client, '/test.Service/Unary', 'fail');
  assert.strictEqual(error.code, StatusCode.INVALID_ARGUMENT);
  assert.strictEqual(error.metadata['x-why'], 'asked');
  assert.strictEqual((await refused(client, '/test.Nowhere/Unary', 'x')).code, StatusCode.UNAVAILABLE);
  assert.strictEqual((await refused(client, '/test.Service/Missing', 'x')).code, StatusCode.UNIMPLEMENTED);
  const late = await client.unaryCall(target + '/test.Service/Unary', Buffer.from('slow'),
    { deadline: String(Date.now() + 400) }, unary).then(() => assert.fail('the call succeeded'), (error) => error);
  assert.strictEqual(late.code, StatusCode.DEADLINE_EXCEEDED);
  if (format === 'text') {
    // Only this one streams in browsers.
    const messages = [];
    const ended = new Promise((resolve, reject) => {
      const stream = client.serverStreaming(target + '/test.Service/Down', Buffer.from('50'), {}, down);
      stream.on('data', (message) => messages.push(text(message)));
      stream.on('status', (status) => resolve(status.code));
      stream.on('error', reject);
    });
    assert.strictEqual(await ended, StatusCode.OK);
    assert.deepStrictEqual(messages, [...Array(50).keys()].map((number) => String(number).repeat(100)));
  }
}

run('binary').then(() => run('text')).then(() => console.log('done'), (error) => {
  console.error(error);
  process.exit(1);
});
