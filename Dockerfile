# The service, without torch:   docker build -t lmmvqa .   docker run -p 8000:8000 lmmvqa
FROM python:3.12-slim AS build
COPY . /source
RUN python -m venv /opt/lmmvqa && /opt/lmmvqa/bin/pip install --no-cache-dir "/source[serve]"
ENV LMMVQA_CACHE=/opt/lmmvqa/checkpoint
# Assembles the default checkpoint. An image that doesn't give the reference scores is not built.
RUN /opt/lmmvqa/bin/lmmvqa verify && rm -r /opt/lmmvqa/checkpoint/parts

FROM python:3.12-slim
COPY --from=build /opt/lmmvqa /opt/lmmvqa
ENV LMMVQA_CACHE=/opt/lmmvqa/checkpoint PATH=/opt/lmmvqa/bin:$PATH
USER 1000
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["lmmvqa"]
CMD ["serve", "--host", "0.0.0.0"]
