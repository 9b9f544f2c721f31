"""The documentation's site: built without a warning, and read in a browser, wide and narrow."""

import http.server
import os
import subprocess
import sys
import threading
from functools import partial

import pytest

from tests.endtoend.browser import PROGRAM, Browser
from tests.endtoend.needs import or_skip

pytestmark = pytest.mark.slow
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def site(request, tmp_path_factory):
    """The folder of the site. `strict` in mkdocs.yml makes a broken link, a missing anchor and a page that the menu lacks an error."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"PYTHONPATH": str(request.config.rootpath), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=request.config.rootpath, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_examples_stand_in_the_reference_as_code(site):
    text = (site / "api" / "planner.html").read_text()
    assert "Planner" in text
    # An `Example:` would be a remark, in which Markdown eats the `>>>`.
    assert 'class="admonition example"' not in "".join(page.read_text() for page in (site / "api").glob("*.html"))


def test_no_page_asks_another_host(site):
    for page in site.rglob("*.html"):
        hosts = {part.split("/")[0] for part in page.read_text().replace("'", '"').split('src="https://')[1:]}
        assert not hosts, page


@or_skip("CHROMIUM", None if PROGRAM else "no chromium: run .ci/install_chromium.sh")
def test_the_site_in_a_browser(site, tmp_path):
    handler = partial(_Silent, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    pages = sorted(str(page.relative_to(site)) for page in site.rglob("*.html") if page.name != "404.html")
    assert len(pages) > 15
    try:
        with Browser(tmp_path / "profile") as browser:
            for width in (1280, 400):
                browser.size(width, 900)
                for page in pages:
                    _go(browser, address + page)
                    assert browser.js(OVERFLOW) == 0, (width, page)
            browser.size(1280, 900)
            _go(browser, f"{address}index.html?q=DistributedModelParallel")
            browser.until("document.querySelectorAll('.md-search-result__item').length > 0")
            assert browser.errors == []
            assert {request.split("/")[2] for request in browser.requests if request.startswith("http")} == {address.split("/")[2]}
    finally:
        server.shutdown()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def _go(browser, address):
    browser.send("Page.navigate", url=address)
    browser.until(f"document.readyState === 'complete' && location.href.startsWith({address.split('?')[0]!r})")
