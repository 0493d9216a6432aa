// Lines of a response as they come, through the decoders of who fetches.
export class LineStream {
  text = '';

  // A browser does not let its pages choose the encoding.
  static async open({ endpoint, token, encoding }) {
    const response = await fetch(`${endpoint}/sync/stream`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Token ${token}`, 'accept-encoding': encoding },
      body: '{"raw_data":true}',
    });
    if (!response.ok) throw new Error(`refused: ${response.status} ${await response.text()}`);
    return new LineStream(response);
  }

  constructor(response) {
    this.encoding = response.headers.get('content-encoding');
    this.reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  }

  async next() {
    while (!this.text.includes('\n')) {
      const { value, done } = await this.reader.read();
      if (done) throw new Error('the stream has ended');
      this.text += value;
    }
    const end = this.text.indexOf('\n');
    const line = this.text.slice(0, end);
    this.text = this.text.slice(end + 1);
    return line;
  }

  async close() {
    await this.reader.cancel();
  }
}
