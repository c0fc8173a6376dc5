# docker build -t sotglp . && docker run -p 8000:8000 -v "$PWD:/models:ro" -e SOTGLP_TOKEN=... sotglp /models/birds.safetensors
FROM python:3.12-slim

# The build of PyTorch for CPUs is a tenth of the default one.
RUN pip install --no-cache-dir torch==2.14.1 torchvision==0.29.1 --index-url https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir '/source[web,heic]' && useradd --create-home --uid 1000 sotglp

# Uploads above 1 MB and the downloadable copy of the model are in /tmp, downloaded weights in the home folder.
USER 1000
WORKDIR /home/sotglp
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=8)"]
ENTRYPOINT ["sotglp", "serve", "--host", "0.0.0.0"]
CMD ["/models/model.safetensors"]
