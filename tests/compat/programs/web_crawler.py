"""A crawler: an async actor fetches many pages at once from a server on this machine, and follows their links."""

import asyncio
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ray

PAGES = 30
LINKS = {page: sorted({(page * 2 + 1) % PAGES, (page * 2 + 2) % PAGES, page // 2}) for page in range(PAGES)}


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        page = int(self.path.strip("/"))
        if page == 13:
            self.send_error(404)
            return
        body = "".join(f'<a href="/{link}">{link}</a>' for link in LINKS[page]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@ray.remote
class Crawler:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.running = self.most = 0

    async def fetch(self, page):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(f"GET /{page} HTTP/1.0\r\n\r\n".encode())
            await asyncio.sleep(0.05)
            answer = (await reader.read()).decode()
            writer.close()
        finally:
            self.running -= 1
        status = int(answer.split()[1])
        if status != 200:
            raise LookupError(f"page {page}: {status}")
        return [int(link) for link in re.findall(r'href="/(\d+)"', answer)]

    async def overlapped(self):
        return self.most > 1


def crawl(crawler):
    seen, failed = {0}, []
    pending = {crawler.fetch.remote(0): 0}
    while pending:
        done, _ = ray.wait(list(pending), num_returns=1)
        page = pending.pop(done[0])
        try:
            links = ray.get(done[0])
        except LookupError as error:
            failed.append((page, error.args[0]))
            continue
        for link in links:
            if link not in seen:
                seen.add(link)
                pending[crawler.fetch.remote(link)] = link
    return seen, failed


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ray.init(num_cpus=2, log_to_driver=False)
    crawler = Crawler.remote(*server.server_address)
    seen, failed = crawl(crawler)
    print("seen", sorted(seen))
    print("failed", failed)
    print("requests overlapped:", ray.get(crawler.overlapped.remote()))
    server.shutdown()
